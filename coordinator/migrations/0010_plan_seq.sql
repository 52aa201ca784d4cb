-- The decision that `plan` and `source` come from: a later one to do nothing leaves them.
ALTER TABLE incident ADD COLUMN plan_seq INTEGER;
UPDATE incident SET plan_seq = decided_seq WHERE plan IS NOT NULL;
