# Readers and writers in WAL mode: shared memory, locks, truncation and fsync. Then all must be whole.
sqlite3 base.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB); CREATE INDEX i ON t(a);'
write() {
    n=0
    while [ "$n" -lt "$((ROUNDS * 10))" ]; do
        sqlite3 base.db "PRAGMA busy_timeout=20000; BEGIN IMMEDIATE;
            INSERT INTO t(a, b) SELECT 'w$1-$n-' || value, randomblob(500) FROM generate_series(1, 100);
            DELETE FROM t WHERE id % 7 = 0; COMMIT;" >/dev/null
        n=$((n + 1))
    done
}
write 1 & one=$!
write 2 & two=$!
sqlite3 base.db 'PRAGMA busy_timeout=20000; SELECT count(*) FROM t; SELECT sum(length(b)) FROM t;' >/dev/null
wait "$one"
wait "$two"
[ "$(sqlite3 base.db 'PRAGMA integrity_check;')" = ok ]
# Every ROWID stays or was deleted as a multiple of 7; each writer's transactions are whole.
[ "$(sqlite3 base.db 'SELECT count(*) > 0 FROM t;')" = 1 ]
[ "$(sqlite3 base.db 'SELECT count(*) FROM t WHERE id % 7 = 0 AND id < (SELECT max(id) - 100 FROM t);')" = 0 ]
sqlite3 base.db 'PRAGMA wal_checkpoint(TRUNCATE); VACUUM; PRAGMA journal_mode=DELETE;' >/dev/null
[ "$(sqlite3 base.db 'PRAGMA integrity_check;')" = ok ]
[ ! -e base.db-wal ]
