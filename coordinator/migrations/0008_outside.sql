-- Alarms of other systems: Alertmanager's, and those of devices over MQTT. One row for
-- each time that one stood; what is over is kept for the incidents of its time.
CREATE TABLE outside_alarm (
  number INTEGER PRIMARY KEY,
  -- alertmanager, mqtt
  source TEXT NOT NULL,
  -- What the source tells it apart by: a fingerprint, or topic and name.
  key TEXT NOT NULL,
  name TEXT NOT NULL,
  -- As far as they are known here.
  node TEXT,
  service TEXT,
  severity TEXT NOT NULL,
  text TEXT NOT NULL,
  raised INTEGER NOT NULL DEFAULT 1,
  since_ms INTEGER NOT NULL,
  heard_ms INTEGER NOT NULL,
  ended_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX outside_stands ON outside_alarm(source, key) WHERE raised;
CREATE INDEX outside_ended ON outside_alarm(ended_ms) WHERE NOT raised;
CREATE INDEX outside_node ON outside_alarm(node) WHERE node NOTNULL;
