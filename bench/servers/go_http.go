// HTTP server in Go with net/http, one processor: go_http MODE FILE
// The modes are those of asio_http.lua.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
)

var greeting = []byte("hello, world\n")

func hello(w http.ResponseWriter, r *http.Request) {
	h := r.Header
	if r.Host == "" || h.Get("User-Agent") == "" || h.Get("Accept") == "" ||
		h.Get("Accept-Encoding") == "" || h.Get("Cookie") == "" {
		w.WriteHeader(400)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Write(greeting)
}

func echo(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) != 5 || parts[1] != "users" || parts[3] != "posts" {
		w.WriteHeader(404)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func file(w http.ResponseWriter, r *http.Request) {
	http.ServeFile(w, r, os.Args[2])
}

func main() {
	runtime.GOMAXPROCS(1)
	handlers := map[string]http.HandlerFunc{"hello": hello, "echo": echo, "file": file}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("port=%d\n", listener.Addr().(*net.TCPAddr).Port)
	panic(http.Serve(listener, handlers[os.Args[1]]))
}
