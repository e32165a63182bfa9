-- A database of schema 1 with one row of each kind, as the first release
-- wrote it. Never edited: later schemas must be able to read it.
CREATE TABLE schema_version (version BIGINT PRIMARY KEY, applied_at_unix_ms BIGINT NOT NULL);
INSERT INTO schema_version VALUES (1, 1780000000000);

CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    created_at_unix_ms BIGINT NOT NULL
);

CREATE TABLE api_tokens (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    role TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL UNIQUE,
    created_at_unix_ms BIGINT NOT NULL
);

CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    secret_sha256 TEXT NOT NULL UNIQUE,
    created_at_unix_ms BIGINT NOT NULL,
    expires_at_unix_ms BIGINT NOT NULL,
    used_at_unix_ms BIGINT,
    used_by_node_id TEXT
);

CREATE TABLE profiles (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE templates (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    profile TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (tenant_id, name),
    FOREIGN KEY (tenant_id, profile) REFERENCES profiles (tenant_id, name)
);

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    enrolled_at_unix_ms BIGINT NOT NULL,
    last_heartbeat_unix_ms BIGINT,
    instance_id TEXT NOT NULL,
    desired_generation BIGINT NOT NULL,
    status TEXT NOT NULL,
    failing TEXT NOT NULL,
    cpu_allocatable_millis BIGINT NOT NULL,
    memory_allocatable_bytes BIGINT NOT NULL,
    sandboxes_max BIGINT NOT NULL,
    cpu_requested_millis BIGINT NOT NULL,
    memory_requested_bytes BIGINT NOT NULL,
    sandboxes BIGINT NOT NULL,
    UNIQUE (tenant_id, name)
);

CREATE TABLE node_images (
    node_id TEXT NOT NULL REFERENCES nodes (id),
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    reference TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    imported_at_unix_ms BIGINT NOT NULL,
    PRIMARY KEY (node_id, reference)
);
CREATE INDEX node_images_by_reference ON node_images (tenant_id, reference);

CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT,
    node_id TEXT NOT NULL REFERENCES nodes (id),
    generation BIGINT NOT NULL,
    node_generation BIGINT NOT NULL,
    run_state TEXT NOT NULL,
    restart_count BIGINT NOT NULL,
    template TEXT NOT NULL,
    spec TEXT NOT NULL,
    cpu_request_millis BIGINT NOT NULL,
    memory_request_bytes BIGINT NOT NULL,
    phase TEXT NOT NULL,
    observed TEXT NOT NULL,
    observed_revision BIGINT NOT NULL,
    observed_at_unix_ms BIGINT,
    created_at_unix_ms BIGINT NOT NULL,
    UNIQUE (tenant_id, name)
);
CREATE INDEX sandboxes_by_creation ON sandboxes (tenant_id, created_at_unix_ms, id);
CREATE INDEX sandboxes_by_node ON sandboxes (node_id, node_generation);

CREATE TABLE idempotency_keys (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    idempotency_key TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    answer TEXT NOT NULL,
    created_at_unix_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, idempotency_key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at_unix_ms);

INSERT INTO tenants VALUES ('default', 1780000000000);
INSERT INTO api_tokens VALUES ('tok-0123456789abcdef', 'default', 'admin', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad', 1780000000000);
INSERT INTO join_tokens VALUES ('join-0123456789abcdef', 'default', 'aa', 1780000000000, 1780000360000, 1780000001000, 'node-0123456789abcdef');
INSERT INTO profiles VALUES ('default', 'small', '{"name":"small","description":"","resources":{"cpu_request_millis":20,"cpu_limit_millis":0,"memory_request_bytes":33554432,"memory_limit_bytes":536870912,"pids_limit":512,"shm_bytes":67108864},"isolation":{"nested_user_namespaces":false}}');
INSERT INTO templates VALUES ('default', 'bare', 'small', '{"name":"bare","description":"","image":"roost/desktop:latest","profile":"small","command":[],"working_dir":null,"window_manager":"none","stop_grace_ms":2000,"start_timeout_ms":30000,"env":{},"display":{"kind":"xvfb","width_px":1280,"height_px":800,"glx":false},"readiness":"none"}');
INSERT INTO nodes VALUES ('node-0123456789abcdef', 'default', 'n1', 1780000001000, 1780000009000, 'i1', 1, '{"facts":{"hostname":"n1","kernel":"6.18","architecture":"x86_64","cpus":2,"memory_bytes":1,"cgroup_version":"v2","containerd_version":"1.6","daemon_version":"0.1.0","boot_id":"b"},"capacity":{"cpu_allocatable_millis":2000,"memory_allocatable_bytes":8589934592,"sandboxes_max":100},"images":[],"conditions":[],"load":{"memory_used_bytes":0,"memory_available_bytes":0,"load1_milli":0,"disk_free_bytes":0}}', '', 2000, 8589934592, 100, 20, 33554432, 1);
INSERT INTO node_images VALUES ('node-0123456789abcdef', 'default', 'roost/desktop:latest', 'sha256:00', 5, 1780000002000);
INSERT INTO sandboxes VALUES ('sbx-0123456789abcdef', 'default', 'first', 'node-0123456789abcdef', 1, 1, 'running', 0, 'bare', '{"template":"bare","image":"roost/desktop:latest","command":[],"env":{},"working_dir":null,"display":{"kind":"xvfb","width_px":1280,"height_px":800,"glx":false},"window_manager":"none","readiness":"none","resources":{"cpu_request_millis":20,"cpu_limit_millis":0,"memory_request_bytes":33554432,"memory_limit_bytes":536870912,"pids_limit":512,"shm_bytes":67108864},"isolation":{"nested_user_namespaces":false},"stop_grace_ms":2000,"start_timeout_ms":30000}', 20, 33554432, 'Ready', '{"observed_generation":1,"revision":9,"phase":"Ready","stage":null,"reason":null,"message":null,"stages":[{"stage":"ledger","begin_us":0,"duration_us":900}],"display":{"number":0},"ready_at_unix_ms":1780000005000,"starts":1,"exit_code":null,"usage":null}', 9, 1780000005000, 1780000004000);
INSERT INTO idempotency_keys VALUES ('default', 'key-00000001', 'bb', '{}', 1780000004000);
