// Echo server on Node, with callbacks and whole chunks, the way its users write it: node_echo.js
'use strict';
const net = require('net');

const server = net.createServer({ noDelay: true }, (socket) => {
    socket.on('data', (chunk) => socket.write(chunk));
    socket.on('error', () => socket.destroy());
});

server.listen({ host: '127.0.0.1', port: 0, backlog: 1024 }, () => {
    console.log('port=' + server.address().port);
});
