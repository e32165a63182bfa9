CREATE TABLE pools (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

-- Where central has put a pool, from before it asks the node to keep it until
-- the node has let it go; name is the one that the node knows.
CREATE TABLE node_pools (
    node_id TEXT NOT NULL REFERENCES nodes (id),
    name TEXT NOT NULL,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    pool TEXT NOT NULL,
    standing TEXT NOT NULL,
    -- NULL until the node has said how the pool stands.
    seen_at_unix_ms BIGINT,
    PRIMARY KEY (node_id, name)
);
CREATE INDEX node_pools_by_pool ON node_pools (tenant_id, pool);

-- A claim before its node is asked (state "asked") and once it has a row in
-- sandboxes ("kept"). Values of secrets and content of files are never here.
CREATE TABLE claims (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    idempotency_key TEXT,
    body_sha256 TEXT NOT NULL,
    pool TEXT NOT NULL,
    name TEXT,
    state TEXT NOT NULL,
    -- The only node whose answer counts; NULL while none was chosen.
    node_id TEXT,
    -- Set before a sandbox is made for the claim, and once it has one.
    sandbox_id TEXT,
    -- Why no desktop of the pool was taken; NULL where one was.
    cold_reason TEXT,
    -- NULL until everything is bound.
    answer TEXT,
    created_at_unix_ms BIGINT NOT NULL,
    UNIQUE (tenant_id, idempotency_key)
);
CREATE INDEX claims_by_state ON claims (state, created_at_unix_ms);
