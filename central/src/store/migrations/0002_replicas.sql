-- Which replica of central had the last session of a node; NULL before any.
ALTER TABLE nodes ADD COLUMN held_by TEXT;
