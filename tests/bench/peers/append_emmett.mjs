// Appends one-event commands with Emmett, each to a stream that is not there yet.
//
// Environment: POSTGRES_SOCKET (folder), POSTGRES_PORT, POSTGRES_USER, POSTGRES_DBNAME, WRITERS,
// SECONDS. Prints {"rate": commands/s}.
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { STREAM_DOES_NOT_EXIST } from '@event-driven-io/emmett';
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';

const { POSTGRES_SOCKET, POSTGRES_PORT, POSTGRES_USER, POSTGRES_DBNAME } = process.env;
const writers = Number(process.env.WRITERS);
const database = {
  host: POSTGRES_SOCKET,
  port: Number(POSTGRES_PORT),
  user: POSTGRES_USER,
  database: POSTGRES_DBNAME,
};
const pool = new pg.Pool({ ...database, max: writers });
const url =
  `postgresql://${POSTGRES_USER}@localhost:${POSTGRES_PORT}/${POSTGRES_DBNAME}` +
  `?host=${encodeURIComponent(POSTGRES_SOCKET)}`;
const store = getPostgreSQLEventStore(url, { connectionOptions: { pool } });
const data = { name: 'x'.repeat(200), amount: { value: '1000.00', currency: 'EUR' } };

const append = () =>
  store.appendToStream(`deal-${randomUUID()}`, [{ type: 'Opened', data }], {
    expectedStreamVersion: STREAM_DOES_NOT_EXIST,
  });

await append(); // makes the tables
const started = performance.now();
const end = started + Number(process.env.SECONDS) * 1000;
let done = 0;
await Promise.all(
  Array.from({ length: writers }, async () => {
    while (performance.now() < end) {
      await append();
      done += 1;
    }
  }),
);
const rate = done / ((performance.now() - started) / 1000);
await store.close();
await pool.end();
console.log(JSON.stringify({ rate }));
