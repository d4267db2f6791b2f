// Browsers of a Node service: so many websockets that say something now and then.
//
// websockets.js PORT COUNT
'use strict';
const { WebSocket } = require('ws');

const [port, count] = process.argv.slice(2).map(Number);

function browser() {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`);
    socket.on('open', () => {
      setInterval(() => socket.send('what is new?'), 500);
      resolve();
    });
    socket.on('error', reject);
  });
}

process.stdin.on('end', () => process.exit(0));
process.stdin.resume();
Promise.all(Array.from({ length: count }, browser)).then(
  () => console.log('ready'),
  (error) => {
    console.error(error.message);
    process.exit(1);
  },
);
