// SPDX-License-Identifier: GPL-2.0-or-later

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/rpc"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// ---- http: HTTP/1.1 ----

const (
	bigSize       = 4 << 20
	headerTimeout = 5 * time.Second
)

// What /slow has seen: requests whose client has gone.
var gaveUp int32

func handlers() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	// The checksum of what was sent, and how that was framed.
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		sum, n, err := sumOf(r.Body)
		fmt.Fprintf(w, "%s %d %v %v", sum, n, err, r.TransferEncoding)
	})
	// Of unknown length, hence chunked in HTTP/1.1, with a trailer behind it.
	mux.HandleFunc("/data", func(w http.ResponseWriter, r *http.Request) {
		seed, _ := strconv.Atoi(r.FormValue("seed"))
		size, _ := strconv.Atoi(r.FormValue("size"))
		w.Header().Set("Trailer", "Sum")
		sum, _, _ := sumOf(data(seed, size))
		io.Copy(w, data(seed, size))
		w.Header().Set("Sum", sum)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		atomic.AddInt32(&gaveUp, 1)
	})
	mux.HandleFunc("/gave-up", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, atomic.LoadInt32(&gaveUp)) })
	// The client sees the first line before there is a second.
	next := make(chan bool)
	mux.HandleFunc("/lines", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first\n")
		w.(http.Flusher).Flush()
		<-next
		io.WriteString(w, "second\n")
	})
	mux.HandleFunc("/next", func(w http.ResponseWriter, r *http.Request) { next <- true })
	// No longer HTTP.
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, r *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		echo(c.(*net.TCPConn))
	})
	return mux
}

func serveHTTP(ln net.Listener) {
	f, err := os.CreateTemp("", "traffic")
	if err != nil {
		panic(err)
	}
	os.Remove(f.Name())
	io.Copy(f, data(9, fileSize))
	mux := handlers()
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "file", time.Time{}, io.NewSectionReader(f, 0, fileSize))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	server.Serve(ln)
}

// fetch returns the answer's body, or an error if the status is not 200.
func fetch(client *http.Client, r *http.Request) ([]byte, error) {
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.URL, answer.Status)
	}
	return body, err
}

func get(client *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return nil, err
	}
	return fetch(client, r)
}

// post sends so much data, and asks for its checksum; framing is what the server is to say about it.
func post(client *http.Client, url string, seed, size int, length int64, framing string, headers ...string) error {
	want, _, _ := sumOf(data(seed, size))
	r, err := http.NewRequest("POST", url+"/sum", data(seed, size))
	if err != nil {
		return err
	}
	r.ContentLength = length
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	got, err := fetch(client, r)
	if err == nil && string(got) != fmt.Sprintf("%s %d <nil> %s", want, size, framing) {
		err = fmt.Errorf("the server says %q", got)
	}
	return err
}

// download fetches so much data, and compares it and the checksum in the trailer.
func download(client *http.Client, url string, seed, size, major int) error {
	answer, err := client.Get(fmt.Sprintf("%s/data?seed=%d&size=%d", url, seed, size))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.ProtoMajor != major {
		return fmt.Errorf("the answer is %s", answer.Proto)
	}
	if err := same(answer.Body, seed, size); err != nil {
		return err
	}
	if want, _, _ := sumOf(data(seed, size)); answer.Trailer.Get("Sum") != want {
		return fmt.Errorf("the trailer is %v", answer.Trailer)
	}
	return nil
}

func checkHTTP(address string) error {
	transport := &http.Transport{MaxIdleConnsPerHost: 30, ExpectContinueTimeout: 20 * time.Second}
	defer transport.CloseIdleConnections()
	client, url := &http.Client{Transport: transport}, "http://"+address
	return all(
		step{"keep-alive", func() error {
			reused := 0
			trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
				if info.Reused {
					reused++
				}
			}}
			for i := 0; i < 50; i++ {
				r, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET", url+"/hello", nil)
				if err != nil {
					return err
				}
				if got, err := fetch(client, r); err != nil || string(got) != "hello" {
					return fmt.Errorf("request %d: %q, %v", i, got, err)
				}
			}
			if reused != 49 {
				return fmt.Errorf("of 50 requests %d were by a connection that was there", reused)
			}
			return nil
		}},
		step{"no keep-alive", func() error {
			once := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			return together(10, func(int) error {
				_, err := get(once, url+"/hello")
				return err
			})
		}},
		step{"upload", func() error { return post(client, url, 1, bigSize, bigSize, "[]") }},
		step{"chunked upload", func() error { return post(client, url, 2, 3000000, -1, "[chunked]") }},
		step{"upload after 100 Continue", func() error { return post(client, url, 3, 100000, 100000, "[]", "Expect", "100-continue") }},
		step{"chunked download", func() error { return download(client, url, 4, bigSize, 1) }},
		step{"thirty at once", func() error {
			return together(30, func(i int) error {
				size := 1 + i*10000
				if err := post(client, url, i, size, int64(size), "[]"); err != nil {
					return err
				}
				return download(client, url, i, size, 1)
			})
		}},
		step{"a file", func() error {
			got, err := get(client, url+"/file")
			if err != nil {
				return err
			}
			return same(bytes.NewReader(got), 9, fileSize)
		}},
		step{"lines as they come", func() error {
			answer, err := client.Get(url + "/lines")
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			lines := bufio.NewReader(answer.Body)
			first, err := lines.ReadString('\n')
			if err != nil {
				return err
			}
			if _, err := get(client, url+"/next"); err != nil {
				return err
			}
			second, err := io.ReadAll(lines)
			if err == nil && first+string(second) != "first\nsecond\n" {
				err = fmt.Errorf("%q and %q", first, second)
			}
			return err
		}},
		step{"a client's timeout", func() error {
			before, err := get(client, url+"/gave-up")
			if err != nil {
				return err
			}
			hasty := &http.Client{Transport: transport, Timeout: 500 * time.Millisecond}
			_, err = get(hasty, url+"/slow")
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				return fmt.Errorf("it says %v", err)
			}
			for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
				got, err := get(client, url+"/gave-up")
				if err != nil {
					return err
				}
				if !bytes.Equal(got, before) {
					return nil
				}
			}
			return errors.New("the server does not notice that the client has gone")
		}},
		step{"the server's timeout", func() error {
			return with(address, func(c *net.TCPConn) error {
				begun := time.Now()
				io.WriteString(c, "GET /hello HTTP/1.1\r\nHost:")
				c.SetReadDeadline(begun.Add(10 * headerTimeout))
				_, err := io.ReadAll(c)
				if waited := time.Since(begun); err != nil || waited < headerTimeout*9/10 {
					return fmt.Errorf("after %v: %v", waited, err)
				}
				return nil
			})
		}},
		step{"another protocol", func() error {
			return with(address, func(c *net.TCPConn) error {
				io.WriteString(c, "GET /upgrade HTTP/1.1\r\nHost: g2\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
				head := make([]byte, len("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"))
				if _, err := io.ReadFull(c, head); err != nil || !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
					return fmt.Errorf("%q, %v", head, err)
				}
				return exchange(c, 6, 100000)
			})
		}},
		step{"pipelined requests", func() error {
			return with(address, func(c *net.TCPConn) error {
				io.WriteString(c, strings.Repeat("GET /hello HTTP/1.1\r\nHost: g2\r\n\r\n", 19)+
					"GET /hello HTTP/1.1\r\nHost: g2\r\nConnection: close\r\n\r\n")
				got, err := io.ReadAll(c)
				if n := strings.Count(string(got), "\r\n\r\nhello"); err != nil || n != 20 {
					return fmt.Errorf("%d answers, %v", n, err)
				}
				return nil
			})
		}},
		step{"a server that ends", endingServer},
	)
}

// Shutdown waits for the request that is under way.
func endingServer() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	begun, ended := make(chan bool), make(chan error, 2)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		time.Sleep(300 * time.Millisecond)
		io.WriteString(w, "done")
	})}
	go func() { ended <- server.Serve(ln) }()
	go func() {
		<-begun
		ended <- server.Shutdown(context.Background())
	}()
	client := &http.Client{Transport: &http.Transport{}}
	got, err := get(client, "http://"+ln.Addr().String())
	if err != nil || string(got) != "done" {
		return fmt.Errorf("%q, %v", got, err)
	}
	for i := 0; i < 2; i++ {
		if err := <-ended; err != nil && err != http.ErrServerClosed {
			return err
		}
	}
	return refused(ln.Addr().(*net.TCPAddr).Port)
}

// ---- http2: over TLS, many requests by one connection ----

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}
}

func serveHTTP2(ln net.Listener) {
	server := &http.Server{Handler: handlers(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate()}}}
	server.ServeTLS(ln, "", "")
}

func checkHTTP2(address string) error {
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	client, url := &http.Client{Transport: transport}, "https://"+address
	return all(
		step{"one request", func() error { return download(client, url, 1, 1000, 2) }},
		step{"upload", func() error { return post(client, url, 2, 2000000, -1, "[]") }},
		step{"twenty at once", func() error {
			return together(20, func(i int) error { return download(client, url, i, i*20000, 2) })
		}},
		step{"HTTP/1.1 over TLS", func() error {
			one := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			defer one.CloseIdleConnections()
			return download(&http.Client{Transport: one}, url, 3, 500000, 1)
		}},
	)
}

// ---- rpc: net/rpc, many calls at once by one connection ----

type Arithmetic struct{}

type Pair struct{ A, B int }

func (Arithmetic) Multiply(p Pair, product *int) error {
	*product = p.A * p.B
	return nil
}

func (Arithmetic) Divide(p Pair, quotient *int) error {
	if p.B == 0 {
		return errors.New("by zero")
	}
	*quotient = p.A / p.B
	return nil
}

func (Arithmetic) Reverse(in []byte, out *[]byte) error {
	for i := range in {
		*out = append(*out, in[len(in)-1-i])
	}
	return nil
}

func serveRPC(ln net.Listener) {
	server := rpc.NewServer()
	if err := server.Register(Arithmetic{}); err != nil {
		panic(err)
	}
	server.Accept(ln)
}

func checkRPC(address string) error {
	client, err := rpc.Dial("tcp", address)
	if err != nil {
		return err
	}
	err = all(
		step{"calls one by one", func() error {
			for i := 0; i < 100; i++ {
				var got int
				if err := client.Call("Arithmetic.Multiply", Pair{i, i + 1}, &got); err != nil || got != i*(i+1) {
					return fmt.Errorf("call %d: %d, %v", i, got, err)
				}
			}
			return nil
		}},
		step{"calls at once", func() error {
			return together(100, func(i int) error {
				in, _ := io.ReadAll(data(i, i*500))
				var once, twice []byte
				if err := client.Call("Arithmetic.Reverse", in, &once); err != nil {
					return err
				}
				if err := client.Call("Arithmetic.Reverse", once, &twice); err != nil {
					return err
				}
				if !bytes.Equal(in, twice) {
					return errors.New("the answer is another")
				}
				return nil
			})
		}},
		step{"an error", func() error {
			var got int
			err := client.Call("Arithmetic.Divide", Pair{1, 0}, &got)
			if err == nil || err.Error() != "by zero" {
				return fmt.Errorf("it says %v", err)
			}
			return nil
		}},
		step{"many clients", func() error {
			return together(20, func(i int) error {
				own, err := rpc.Dial("tcp", address)
				if err != nil {
					return err
				}
				defer own.Close()
				var got int
				if err := own.Call("Arithmetic.Divide", Pair{6 * i, 3}, &got); err != nil || got != 2*i {
					return fmt.Errorf("%d, %v", got, err)
				}
				return nil
			})
		}},
	)
	client.Close()
	if after := client.Call("Arithmetic.Multiply", Pair{}, new(int)); err == nil && after != rpc.ErrShutdown {
		err = fmt.Errorf("after Close a call says %v", after)
	}
	return err
}
