// Echo server in Go, one goroutine per connection, one processor: go_echo SIZE
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
)

func echo(con net.Conn, size int) {
	defer con.Close()
	buffer := make([]byte, size)
	for {
		if _, err := io.ReadFull(con, buffer); err != nil {
			return
		}
		if _, err := con.Write(buffer); err != nil {
			return
		}
	}
}

func main() {
	runtime.GOMAXPROCS(1)
	size := 64
	if len(os.Args) > 1 {
		n, err := strconv.Atoi(os.Args[1])
		if err != nil || n <= 0 {
			fmt.Fprintln(os.Stderr, "usage: go_echo SIZE")
			os.Exit(2)
		}
		size = n
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("port=%d\n", listener.Addr().(*net.TCPAddr).Port)
	for {
		con, err := listener.Accept()
		if err != nil {
			continue
		}
		// Go sets TCP_NODELAY on every TCP connection by itself.
		go echo(con, size)
	}
}
