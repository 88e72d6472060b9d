// TLS server on Node, with callbacks, the way its users write it: node_tls.js MODE CERT KEY [BYTES]
// The modes are those of asio_tls.lua.
'use strict';
const fs = require('fs');
const tls = require('tls');

const MESSAGE = 64, CHUNK = 65536;
const [mode, cert, key, count] = process.argv.slice(2);
const bytes = Number(count);

const handlers = {
    echo(socket) {
        socket.on('data', (data) => socket.write(data));
        socket.on('end', () => socket.end());
    },
    send(socket) {
        const chunk = Buffer.alloc(CHUNK, 'x');
        let left = bytes;
        const more = () => {
            while (left > 0) {
                const n = Math.min(left, CHUNK);
                left -= n;
                if (!socket.write(n === CHUNK ? chunk : chunk.subarray(0, n))) return;
            }
            socket.end();
        };
        socket.on('drain', more);
        socket.once('data', more);
    },
    receive(socket) {
        let left = bytes;
        socket.on('data', (data) => {
            left -= data.length;
            if (left <= 0) socket.end(Buffer.alloc(MESSAGE, 'x'));
        });
    },
};

const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), noDelay: true };
const server = tls.createServer(options, (socket) => {
    handlers[mode](socket);
    socket.on('error', () => socket.destroy());
});

server.listen({ host: '127.0.0.1', port: 0, backlog: 1024 }, () => {
    console.log('port=' + server.address().port);
});
