-- Requests and limits in place of those of the spec, as a document; NULL =
-- those of the spec. cpu_request_millis and memory_request_bytes follow it.
ALTER TABLE sandboxes ADD COLUMN resources TEXT;
