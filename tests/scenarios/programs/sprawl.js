// One Node process with a pool for each of its modules, or one for all.
//
// sprawl.js PORT POOLS SIZE PAUSE_MS WORKERS
//
// Each module makes its pool when it is loaded and fills it at once; afterwards so many workers ask one query at a time.
'use strict';
const { Pool } = require('pg');

const [port, pools, size, pause, workers] = process.argv.slice(2).map(Number);
const all = [];

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function load() {
  const pool = new Pool({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres', max: size, idleTimeoutMillis: 0 });
  pool.on('error', () => {});
  const clients = await Promise.all(Array.from({ length: size }, () => pool.connect()));
  for (const client of clients) {
    client.release();
  }
  all.push(pool);
}

async function main() {
  for (let module = 0; module < pools; module += 1) {
    await load();
    await sleep(pause);
  }
  console.log('ready');
  const worker = async () => {
    for (let turn = 0; ; turn += 1) {
      await all[turn % all.length].query('SELECT pg_sleep(0.05)');
      await sleep(10);
    }
  };
  await Promise.all(Array.from({ length: workers }, worker));
}

process.stdin.on('end', () => process.exit(0));
process.stdin.resume();
main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
