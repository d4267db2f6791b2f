// A Node service with several pools to PostgreSQL of the given sizes, and Redis and websockets beside them.
//
// service.js PORT REDIS_PORT WEBSOCKET_PORT SIZE...
'use strict';
const { Pool } = require('pg');
const Redis = require('ioredis');
const { WebSocketServer } = require('ws');

const [port, redisPort, websocketPort, ...sizes] = process.argv.slice(2).map(Number);

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function main() {
  const redis = new Redis({ host: '127.0.0.1', port: redisPort });
  const websockets = new WebSocketServer({ host: '127.0.0.1', port: websocketPort });
  websockets.on('connection', (socket) => {
    socket.on('error', () => {});
    socket.on('message', async () => socket.send(String(await redis.get('requests'))));
  });
  const pools = [];
  for (const size of sizes) {
    const pool = new Pool({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres', max: size, idleTimeoutMillis: 0 });
    pool.on('error', () => {});
    const clients = await Promise.all(Array.from({ length: size }, () => pool.connect()));
    for (const client of clients) {
      client.release();
    }
    pools.push(pool);
    await sleep(1500);
  }
  console.log('ready');
  const worker = async (pool) => {
    for (;;) {
      await pool.query('SELECT pg_sleep(0.02)');
      await redis.incr('requests');
      await sleep(10);
    }
  };
  await Promise.all(pools.map(worker));
}

process.stdin.on('end', () => process.exit(0));
process.stdin.resume();
main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
