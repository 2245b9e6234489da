-- Work for sqlite3 whose output is the same every time: no clock, no chance.
PRAGMA cache_size = 200;
CREATE TABLE item(id INTEGER PRIMARY KEY, grp INTEGER, word TEXT, body BLOB);
WITH RECURSIVE n(i, x) AS (
	SELECT 1, 12345
	UNION ALL
	SELECT i + 1, (x * 1103515245 + 12345) % 2147483648 FROM n LIMIT 7000)
INSERT INTO item SELECT i, x % 97, printf('%08x', x), zeroblob(x % 300) FROM n;
CREATE INDEX item_grp ON item(grp, word);
CREATE INDEX item_word ON item(word);
UPDATE item SET body = word || hex(body) WHERE grp % 3 = 0;
DELETE FROM item WHERE grp % 7 = 5;
SELECT grp, count(*), min(word), max(word), sum(length(body)) FROM item GROUP BY grp;
BEGIN;
UPDATE item SET grp = grp + 1000;
ROLLBACK;
CREATE TABLE pair AS
	SELECT a.id AS one, b.id AS other FROM item a JOIN item b
	ON a.grp = b.grp AND a.word < b.word WHERE a.grp < 20;
SELECT count(*), sum(one * 3 + other) % 1000003 FROM pair;
SELECT one, count(*) AS n FROM pair GROUP BY one ORDER BY n DESC, one LIMIT 20;
VACUUM;
PRAGMA integrity_check;
SELECT id, grp, word, hex(body) FROM item ORDER BY word;
