<?php
// A request to PHP's own web server: connects, asks once, and is over. DATABASE_PORT names the database; with
// PERSISTENT=1 the worker keeps its connection for the next request.

$where = sprintf('host=127.0.0.1 port=%d user=postgres dbname=postgres', getenv('DATABASE_PORT'));
$connection = getenv('PERSISTENT') === '1' ? pg_pconnect($where) : pg_connect($where);
pg_query($connection, 'SELECT pg_sleep(0.01)');
header('Content-Type: text/plain');
echo "fine\n";
