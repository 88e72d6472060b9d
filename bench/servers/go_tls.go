// TLS server in Go, one goroutine per connection, one processor: go_tls MODE CERT KEY [BYTES]
// The modes are those of asio_tls.lua.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
)

const (
	messageSize = 64
	chunkSize   = 65536
)

var bytes int64

func echo(con net.Conn) {
	defer con.Close()
	buffer := make([]byte, messageSize)
	for {
		if _, err := io.ReadFull(con, buffer); err != nil {
			return
		}
		if _, err := con.Write(buffer); err != nil {
			return
		}
	}
}

func send(con net.Conn) {
	defer con.Close()
	if _, err := io.ReadFull(con, make([]byte, messageSize)); err != nil {
		return
	}
	chunk := make([]byte, chunkSize)
	for left := bytes; left > 0; {
		n := int64(chunkSize)
		if left < n {
			n = left
		}
		if _, err := con.Write(chunk[:n]); err != nil {
			return
		}
		left -= n
	}
}

func receive(con net.Conn) {
	defer con.Close()
	buffer := make([]byte, chunkSize)
	for left := bytes; left > 0; {
		n, err := con.Read(buffer)
		if err != nil {
			return
		}
		left -= int64(n)
	}
	con.Write(buffer[:messageSize])
}

func fail(reason interface{}) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}

func main() {
	runtime.GOMAXPROCS(1)
	handlers := map[string]func(net.Conn){"echo": echo, "send": send, "receive": receive}
	if len(os.Args) < 4 || handlers[os.Args[1]] == nil {
		fail("usage: go_tls echo|send|receive CERT KEY [BYTES]")
	}
	if len(os.Args) > 4 {
		bytes, _ = strconv.ParseInt(os.Args[4], 10, 64)
	}
	certificate, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
	if err != nil {
		fail(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	listener, err := tls.Listen("tcp4", "127.0.0.1:0", config)
	if err != nil {
		fail(err)
	}
	fmt.Printf("port=%d\n", listener.Addr().(*net.TCPAddr).Port)
	for {
		con, err := listener.Accept()
		if err != nil {
			continue
		}
		// The first read or write does the handshake.
		go handlers[os.Args[1]](con)
	}
}
