-- Set by a restore or an import: since when what runs on the node was not
-- compared with this database, which went back in time. NULL = it was.
ALTER TABLE nodes ADD COLUMN unsettled_at_unix_ms BIGINT;
-- Those of its sandboxes that are orphans; they are counted in its room too.
ALTER TABLE nodes ADD COLUMN orphans BIGINT NOT NULL DEFAULT 0;

-- An orphan was found on its node and nobody has decided on it yet: when it was
-- found, and the name that it had. Its column name is NULL meanwhile, so that
-- the name stays free.
ALTER TABLE sandboxes ADD COLUMN orphaned_at_unix_ms BIGINT;
ALTER TABLE sandboxes ADD COLUMN orphan_name TEXT;
CREATE INDEX sandboxes_orphaned ON sandboxes (tenant_id, orphaned_at_unix_ms) WHERE orphaned_at_unix_ms IS NOT NULL;
