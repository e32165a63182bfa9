-- Written for SQLite and PostgreSQL alike: TEXT and BIGINT only, times as Unix
-- milliseconds, documents as JSON text, truth values as 0 and 1.

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

-- The requested sums are kept here, so that a reservation is one conditional
-- UPDATE and a placement reads one row per node.
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
    -- Of this sandbox's desired state.
    generation BIGINT NOT NULL,
    -- Of its node's desired state, when this one last changed.
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
