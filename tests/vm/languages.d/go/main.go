// SPDX-License-Identifier: GPL-2.0-or-later

// What Go programs do with TCP, for tests/vm/languages: a server for each of several parts, and a client that checks what it
// gets from them.
//
//	traffic serve            until it is killed; says "ready" when all servers listen
//	traffic check HOST...    a line for each part and host, "pass HOST NAME" or "fail HOST NAME: why"; status 1 if one failed
//	traffic self             both in one process, over 127.0.0.1
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"
)

// A part has a port of its own, which serve is given a listener of.
type part struct {
	name  string
	serve func(ln net.Listener)
	check func(address string) error
}

const firstPort = 7101 // and nobody listens on the one before

var parts = []part{
	{"echo", serveEcho, checkEcho},
	{"many", serveEcho, checkMany},
	{"dialling", serveEcho, checkDialling},
	{"half-close", serveSum, checkHalfClose},
	{"deadlines", serveHold, checkDeadlines},
	{"splice", serveProxy, checkEcho},
	{"sendfile", serveFile, checkFile},
	{"inherited", serveInherited, checkInherited},
	{"options", serveEcho, checkOptions},
	{"http", serveHTTP, checkHTTP},
	{"http2", serveHTTP2, checkHTTP2},
	{"rpc", serveRPC, checkRPC},
	{"errors", serveErrors, checkErrors},
	{"closing", serveEcho, checkClosing},
}

const limit = 200 * time.Second // of one part

func port(number int) string { return strconv.Itoa(firstPort + number) }

func serve() error {
	for i, p := range parts {
		ln, err := net.Listen("tcp", ":"+port(i))
		if err != nil {
			return err
		}
		go p.serve(ln)
	}
	return nil
}

func check(host string) (good bool) {
	good = true
	for i, p := range parts {
		hangs := time.AfterFunc(limit, func() {
			fmt.Printf("fail %s %s: it hangs\n", host, p.name)
			pprof.Lookup("goroutine").WriteTo(os.Stdout, 1)
			os.Exit(1)
		})
		begun := time.Now()
		err := p.check(net.JoinHostPort(host, port(i)))
		hangs.Stop()
		if err != nil {
			fmt.Printf("fail %s %s: %v\n", host, p.name, err)
			good = false
			continue
		}
		fmt.Printf("pass %s %s in %.1f s\n", host, p.name, time.Since(begun).Seconds())
	}
	return good
}

func main() {
	words := append(os.Args[1:], "")
	good := true
	switch words[0] {
	case "serve", "self":
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if words[0] == "serve" {
			fmt.Println("ready")
			select {}
		}
		good = check("127.0.0.1")
	case "check":
		for _, host := range os.Args[2:] {
			good = check(host) && good
		}
	case "inherited":
		inherited()
	default:
		fmt.Fprintln(os.Stderr, "usage: traffic serve | check HOST... | self")
		os.Exit(2)
	}
	if !good {
		os.Exit(1)
	}
}

// ---- data ----

// Bytes that depend on the seed and their place.
type pattern struct {
	state uint64
	left  int
	rest  []byte
}

func data(seed, size int) *pattern {
	return &pattern{state: uint64(seed)*0x9e3779b97f4a7c15 + 1, left: size}
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	if len(b) > p.left {
		b = b[:p.left]
	}
	for n := 0; n < len(b); {
		if len(p.rest) == 0 {
			p.state ^= p.state << 13
			p.state ^= p.state >> 7
			p.state ^= p.state << 17
			var eight [8]byte
			for i := range eight {
				eight[i] = byte(p.state >> (8 * i))
			}
			p.rest = eight[:]
		}
		c := copy(b[n:], p.rest)
		n += c
		p.rest = p.rest[c:]
	}
	p.left -= len(b)
	return len(b), nil
}

func sumOf(r io.Reader) (sum string, size int64, err error) {
	h := sha256.New()
	size, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// same reads until the end, and finds there what another reader has.
func same(got io.Reader, seed, size int) error {
	want, _, _ := sumOf(data(seed, size))
	sum, n, err := sumOf(got)
	switch {
	case err != nil:
		return fmt.Errorf("after %d of %d bytes: %w", n, size, err)
	case n != int64(size):
		return fmt.Errorf("%d bytes came of %d", n, size)
	case sum != want:
		return fmt.Errorf("%d bytes came, and they are others", n)
	}
	return nil
}

// ---- helpers ----

func accepted(ln net.Listener, serve func(c *net.TCPConn)) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c.(*net.TCPConn))
		}()
	}
}

func dial(address string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// with calls do with a connection, and closes that.
func with(address string, do func(c *net.TCPConn) error) error {
	c, err := dial(address)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// steps are done one after the other, until one fails.
type step struct {
	name string
	do   func() error
}

func all(steps ...step) error {
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// together calls do in so many goroutines, and returns the first error.
func together(n int, do func(i int) error) error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for i := 0; i < n; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			if err := do(i); err != nil {
				once.Do(func() { first = fmt.Errorf("number %d: %w", i, err) })
			}
		}(i)
	}
	wg.Wait()
	return first
}
