// A Node service's handlers: each request asks MongoDB once.
//
// mongo_service.js PORT per-request|global REQUESTS_A_SECOND MOST
//
// `per-request` makes a MongoClient for each request and never closes it; `global` has one for all.
'use strict';
const { MongoClient } = require('mongodb');

const [port, mode, rate, most] = process.argv.slice(2);
const kept = [];

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function client() {
  return new MongoClient(`mongodb://127.0.0.1:${port}/?directConnection=true`, { maxPoolSize: 10, minPoolSize: 0 });
}

async function main() {
  const shared = mode === 'global' ? client() : null;
  console.log('ready');
  for (let request = 0; request < Number(most); request += 1) {
    const mine = shared ?? client();
    await mine.db('app').collection('things').findOne();
    if (!shared) {
      kept.push(mine);
    }
    await sleep(1000 / Number(rate));
  }
}

process.stdin.on('end', () => process.exit(0));
process.stdin.resume();
main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
