-- What people decided is part of the story: the index behind the timeline holds
-- it as well.
DROP INDEX event_told;
CREATE INDEX event_told ON event(id) WHERE kind IN
  ('boot', 'incident-opened', 'decided', 'step', 'incident-closed', 'alarm', 'route', 'note', 'gap',
   'control');
