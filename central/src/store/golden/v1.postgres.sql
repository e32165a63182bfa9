-- A database of schema 1 with one row of each kind, as pg_dump --inserts wrote it.
-- Never edited: later schemas must be able to read it.
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET client_min_messages = warning;
CREATE TABLE public.api_tokens (
    id text NOT NULL COLLATE pg_catalog."C",
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    role text NOT NULL COLLATE pg_catalog."C",
    secret_sha256 text NOT NULL COLLATE pg_catalog."C",
    created_at_unix_ms bigint NOT NULL
);
CREATE TABLE public.idempotency_keys (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    idempotency_key text NOT NULL COLLATE pg_catalog."C",
    body_sha256 text NOT NULL COLLATE pg_catalog."C",
    answer text NOT NULL COLLATE pg_catalog."C",
    created_at_unix_ms bigint NOT NULL
);
CREATE TABLE public.join_tokens (
    id text NOT NULL COLLATE pg_catalog."C",
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    secret_sha256 text NOT NULL COLLATE pg_catalog."C",
    created_at_unix_ms bigint NOT NULL,
    expires_at_unix_ms bigint NOT NULL,
    used_at_unix_ms bigint,
    used_by_node_id text COLLATE pg_catalog."C"
);
CREATE TABLE public.node_images (
    node_id text NOT NULL COLLATE pg_catalog."C",
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    reference text NOT NULL COLLATE pg_catalog."C",
    digest text NOT NULL COLLATE pg_catalog."C",
    size_bytes bigint NOT NULL,
    imported_at_unix_ms bigint NOT NULL
);
CREATE TABLE public.nodes (
    id text NOT NULL COLLATE pg_catalog."C",
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    enrolled_at_unix_ms bigint NOT NULL,
    last_heartbeat_unix_ms bigint,
    instance_id text NOT NULL COLLATE pg_catalog."C",
    desired_generation bigint NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    failing text NOT NULL COLLATE pg_catalog."C",
    cpu_allocatable_millis bigint NOT NULL,
    memory_allocatable_bytes bigint NOT NULL,
    sandboxes_max bigint NOT NULL,
    cpu_requested_millis bigint NOT NULL,
    memory_requested_bytes bigint NOT NULL,
    sandboxes bigint NOT NULL
);
CREATE TABLE public.profiles (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    document text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.sandboxes (
    id text NOT NULL COLLATE pg_catalog."C",
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    name text COLLATE pg_catalog."C",
    node_id text NOT NULL COLLATE pg_catalog."C",
    generation bigint NOT NULL,
    node_generation bigint NOT NULL,
    run_state text NOT NULL COLLATE pg_catalog."C",
    restart_count bigint NOT NULL,
    template text NOT NULL COLLATE pg_catalog."C",
    spec text NOT NULL COLLATE pg_catalog."C",
    cpu_request_millis bigint NOT NULL,
    memory_request_bytes bigint NOT NULL,
    phase text NOT NULL COLLATE pg_catalog."C",
    observed text NOT NULL COLLATE pg_catalog."C",
    observed_revision bigint NOT NULL,
    observed_at_unix_ms bigint,
    created_at_unix_ms bigint NOT NULL
);
CREATE TABLE public.schema_version (
    version bigint NOT NULL,
    applied_at_unix_ms bigint NOT NULL
);
CREATE TABLE public.templates (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    profile text NOT NULL COLLATE pg_catalog."C",
    document text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.tenants (
    id text NOT NULL COLLATE pg_catalog."C",
    created_at_unix_ms bigint NOT NULL
);
INSERT INTO public.api_tokens VALUES ('tok-0123456789abcdef', 'default', 'admin', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad', 1780000000000);
INSERT INTO public.idempotency_keys VALUES ('default', 'key-00000001', 'bb', '{}', 1780000004000);
INSERT INTO public.join_tokens VALUES ('join-0123456789abcdef', 'default', 'aa', 1780000000000, 1780000360000, 1780000001000, 'node-0123456789abcdef');
INSERT INTO public.node_images VALUES ('node-0123456789abcdef', 'default', 'roost/desktop:latest', 'sha256:00', 5, 1780000002000);
INSERT INTO public.nodes VALUES ('node-0123456789abcdef', 'default', 'n1', 1780000001000, 1780000009000, 'i1', 1, '{"facts":{"hostname":"n1","kernel":"6.18","architecture":"x86_64","cpus":2,"memory_bytes":1,"cgroup_version":"v2","containerd_version":"1.6","daemon_version":"0.1.0","boot_id":"b"},"capacity":{"cpu_allocatable_millis":2000,"memory_allocatable_bytes":8589934592,"sandboxes_max":100},"images":[],"conditions":[],"load":{"memory_used_bytes":0,"memory_available_bytes":0,"load1_milli":0,"disk_free_bytes":0}}', '', 2000, 8589934592, 100, 20, 33554432, 1);
INSERT INTO public.profiles VALUES ('default', 'small', '{"name":"small","description":"","resources":{"cpu_request_millis":20,"cpu_limit_millis":0,"memory_request_bytes":33554432,"memory_limit_bytes":536870912,"pids_limit":512,"shm_bytes":67108864},"isolation":{"nested_user_namespaces":false}}');
INSERT INTO public.sandboxes VALUES ('sbx-0123456789abcdef', 'default', 'first', 'node-0123456789abcdef', 1, 1, 'running', 0, 'bare', '{"template":"bare","image":"roost/desktop:latest","command":[],"env":{},"working_dir":null,"display":{"kind":"xvfb","width_px":1280,"height_px":800,"glx":false},"window_manager":"none","readiness":"none","resources":{"cpu_request_millis":20,"cpu_limit_millis":0,"memory_request_bytes":33554432,"memory_limit_bytes":536870912,"pids_limit":512,"shm_bytes":67108864},"isolation":{"nested_user_namespaces":false},"stop_grace_ms":2000,"start_timeout_ms":30000}', 20, 33554432, 'Ready', '{"observed_generation":1,"revision":9,"phase":"Ready","stage":null,"reason":null,"message":null,"stages":[{"stage":"ledger","begin_us":0,"duration_us":900}],"display":{"number":0},"ready_at_unix_ms":1780000005000,"starts":1,"exit_code":null,"usage":null}', 9, 1780000005000, 1780000004000);
INSERT INTO public.schema_version VALUES (1, 1780000000000);
INSERT INTO public.templates VALUES ('default', 'bare', 'small', '{"name":"bare","description":"","image":"roost/desktop:latest","profile":"small","command":[],"working_dir":null,"window_manager":"none","stop_grace_ms":2000,"start_timeout_ms":30000,"env":{},"display":{"kind":"xvfb","width_px":1280,"height_px":800,"glx":false},"readiness":"none"}');
INSERT INTO public.tenants VALUES ('default', 1780000000000);
ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_secret_sha256_key UNIQUE (secret_sha256);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, idempotency_key);
ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_secret_sha256_key UNIQUE (secret_sha256);
ALTER TABLE ONLY public.node_images
    ADD CONSTRAINT node_images_pkey PRIMARY KEY (node_id, reference);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_tenant_id_name_key UNIQUE (tenant_id, name);
ALTER TABLE ONLY public.profiles
    ADD CONSTRAINT profiles_pkey PRIMARY KEY (tenant_id, name);
ALTER TABLE ONLY public.sandboxes
    ADD CONSTRAINT sandboxes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.sandboxes
    ADD CONSTRAINT sandboxes_tenant_id_name_key UNIQUE (tenant_id, name);
ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_pkey PRIMARY KEY (tenant_id, name);
ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (id);
CREATE INDEX idempotency_keys_by_age ON public.idempotency_keys USING btree (created_at_unix_ms);
CREATE INDEX node_images_by_reference ON public.node_images USING btree (tenant_id, reference);
CREATE INDEX sandboxes_by_creation ON public.sandboxes USING btree (tenant_id, created_at_unix_ms, id);
CREATE INDEX sandboxes_by_node ON public.sandboxes USING btree (node_id, node_generation);
ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.node_images
    ADD CONSTRAINT node_images_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);
ALTER TABLE ONLY public.node_images
    ADD CONSTRAINT node_images_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.profiles
    ADD CONSTRAINT profiles_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.sandboxes
    ADD CONSTRAINT sandboxes_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);
ALTER TABLE ONLY public.sandboxes
    ADD CONSTRAINT sandboxes_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
ALTER TABLE ONLY public.templates
    ADD CONSTRAINT templates_tenant_id_profile_fkey FOREIGN KEY (tenant_id, profile) REFERENCES public.profiles(tenant_id, name);
