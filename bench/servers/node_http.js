// HTTP server on Node: node_http.js MODE FILE
// The modes are those of asio_http.lua.
'use strict';
const fs = require('fs');
const http = require('http');

const [mode, file] = process.argv.slice(2);
const ROUTE = /^\/users\/([^/]+)\/posts\/([^/]+)$/;

const handlers = {
    hello(req, res) {
        const h = req.headers;
        const all = h['host'] && h['user-agent'] && h['accept'] && h['accept-encoding'] && h['cookie'];
        res.writeHead(all ? 200 : 400, { 'Content-Type': 'text/plain', 'Content-Length': 13 });
        res.end('hello, world\n');
    },
    echo(req, res) {
        const params = ROUTE.exec(req.url), pieces = [];
        req.on('data', (piece) => pieces.push(piece));
        req.on('end', () => {
            const body = pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
            res.writeHead(params ? 200 : 404, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
            res.end(body);
        });
    },
    file(req, res) {
        fs.stat(file, (error, stat) => {
            res.writeHead(200, { 'Content-Type': 'application/octet-stream', 'Content-Length': stat.size });
            fs.createReadStream(file).pipe(res);
        });
    },
};

const server = http.createServer({ keepAliveTimeout: 600000 }, handlers[mode]);
server.listen(0, '127.0.0.1', 1024, () => console.log('port=' + server.address().port));
