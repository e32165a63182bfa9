-- Whether the processes of a sandbox are to stand still (0 or 1), how long it
-- lives instead of what its spec says (a document; NULL = as the spec says), and
-- how many times to live were set so far.
ALTER TABLE sandboxes ADD COLUMN paused BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN lifetime TEXT;
ALTER TABLE sandboxes ADD COLUMN ttl_count BIGINT NOT NULL DEFAULT 0;

-- Sandboxes that are gone because their time was over, for those who ask where
-- they are; dropped after a day.
CREATE TABLE endings (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    ended_at_unix_ms BIGINT NOT NULL
);
CREATE INDEX endings_by_name ON endings (tenant_id, name, ended_at_unix_ms);
CREATE INDEX endings_by_age ON endings (ended_at_unix_ms);
