-- The certificate that a node presents: key id of its CA in hex, and its end.
-- Both NULL until its next session.
ALTER TABLE nodes ADD COLUMN certificate_ca_key_id TEXT;
ALTER TABLE nodes ADD COLUMN certificate_not_after_unix_ms BIGINT;

-- End of a token that was replaced and may be used a while longer; NULL = none.
ALTER TABLE api_tokens ADD COLUMN expires_at_unix_ms BIGINT;
