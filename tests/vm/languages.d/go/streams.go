// SPDX-License-Identifier: GPL-2.0-or-later

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ---- echo: many connections at once, each written and read by goroutines of their own ----

func serveEcho(ln net.Listener) { accepted(ln, echo) }

func echo(c *net.TCPConn) {
	b := make([]byte, 20000)
	for {
		n, err := c.Read(b)
		if n > 0 {
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func checkEcho(address string) error {
	return together(40, func(i int) error {
		return with(address, func(c *net.TCPConn) error { return exchange(c, i, 150000) })
	})
}

func exchange(c *net.TCPConn, seed, size int) error {
	wrote := make(chan error, 1)
	go func() {
		// Pieces of all sizes.
		b, p := make([]byte, 30000), data(seed, size)
		for piece := 1; ; piece = piece*3%29989 + 1 {
			n, err := p.Read(b[:piece])
			if err == io.EOF {
				wrote <- c.CloseWrite()
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				wrote <- err
				return
			}
		}
	}()
	err := same(c, seed, size)
	if werr := <-wrote; err == nil {
		err = werr
	}
	return err
}

// ---- many: all are open at once, and most of them idle ----

func checkMany(address string) error {
	const n = 400
	conns := make([]*net.TCPConn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	err := together(n, func(i int) (err error) {
		conns[i], err = dial(address)
		return err
	})
	if err != nil {
		return err
	}
	for i := 0; i < n; i += 50 {
		if err := exchange(conns[i], i, 200000); err != nil {
			return fmt.Errorf("number %d, the others idle: %w", i, err)
		}
	}
	return together(n, func(i int) error {
		if i%50 == 0 {
			return nil
		}
		return exchange(conns[i], i, 5000)
	})
}

// ---- half-close: the answer comes after the end ----

func serveSum(ln net.Listener) {
	accepted(ln, func(c *net.TCPConn) {
		sum, n, err := sumOf(c)
		fmt.Fprintf(c, "%s %d %v", sum, n, err)
	})
}

func checkHalfClose(address string) error {
	return together(10, func(i int) error {
		size := i * 77777
		want, _, _ := sumOf(data(i, size))
		return with(address, func(c *net.TCPConn) error {
			// In one call of writev().
			parts := net.Buffers{}
			for p := data(i, size); p.left > 0; {
				b := make([]byte, 5000)
				n, _ := p.Read(b)
				parts = append(parts, b[:n])
			}
			if _, err := parts.WriteTo(c); err != nil {
				return err
			}
			if err := c.CloseWrite(); err != nil {
				return err
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
				return fmt.Errorf("a write after CloseWrite: %v", err)
			}
			got, err := io.ReadAll(c)
			if err == nil && string(got) != fmt.Sprintf("%s %d <nil>", want, size) {
				err = fmt.Errorf("the answer is %q", got)
			}
			return err
		})
	})
}

// ---- deadlines: a peer that sends nothing, and one that reads nothing ----

// Of two connections the second says when the first is to be read.
func serveHold(ln net.Listener) {
	for {
		a, err := ln.Accept()
		if err != nil {
			return
		}
		b, err := ln.Accept()
		if err != nil {
			return
		}
		n, err := io.Copy(io.Discard, a)
		fmt.Fprintf(a, "%d %v", n, err)
		a.Close()
		b.Close()
	}
}

func checkDeadlines(address string) error {
	return with(address, func(c *net.TCPConn) error {
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("nothing was sent, and Read says %v", err)
		}
		c.SetReadDeadline(time.Time{})
		total, chunk := 0, make([]byte, 1<<20)
		for full := false; !full; {
			c.SetWriteDeadline(time.Now().Add(time.Second))
			n, err := c.Write(chunk)
			total += n
			full = errors.Is(err, os.ErrDeadlineExceeded)
			if err != nil && !full {
				return fmt.Errorf("Write: %w", err)
			}
			if total > 1<<30 {
				return errors.New("a gigabyte was written, and nobody read it")
			}
		}
		c.SetWriteDeadline(time.Time{})
		return with(address, func(*net.TCPConn) error {
			if err := c.CloseWrite(); err != nil {
				return err
			}
			got, err := io.ReadAll(c)
			if err == nil && string(got) != fmt.Sprintf("%d <nil>", total) {
				err = fmt.Errorf("%d bytes were written, and the peer has read %s", total, got)
			}
			return err
		})
	})
}

// ---- splice: a proxy before the echo, whose io.Copy has the kernel move the data ----

func serveProxy(ln net.Listener) {
	accepted(ln, func(c *net.TCPConn) {
		other, err := dial("127.0.0.1:" + port(0))
		if err != nil {
			return
		}
		defer other.Close()
		go func() {
			io.Copy(other, c)
			other.CloseWrite()
		}()
		io.Copy(c, other)
		c.CloseWrite()
	})
}

// ---- sendfile ----

const fileSize = 3000001

func serveFile(ln net.Listener) {
	f, err := os.CreateTemp("", "traffic")
	if err != nil {
		panic(err)
	}
	os.Remove(f.Name())
	if _, err := io.Copy(f, data(1, fileSize)); err != nil {
		panic(err)
	}
	accepted(ln, func(c *net.TCPConn) {
		own, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err != nil {
			return
		}
		defer own.Close()
		io.Copy(c, own)
		// And a piece from the middle.
		own.Seek(1000000, io.SeekStart)
		io.CopyN(c, own, 500000)
	})
}

func checkFile(address string) error {
	return together(4, func(int) error {
		return with(address, func(c *net.TCPConn) error {
			if err := same(io.LimitReader(c, fileSize), 1, fileSize); err != nil {
				return err
			}
			var middle bytes.Buffer
			skipped := data(1, fileSize)
			io.CopyN(io.Discard, skipped, 1000000)
			io.CopyN(&middle, skipped, 500000)
			got, err := io.ReadAll(c)
			if err == nil && !bytes.Equal(got, middle.Bytes()) {
				err = fmt.Errorf("the piece from the middle is another (%d bytes)", len(got))
			}
			return err
		})
	})
}

// ---- inherited: a listener is handed to a new process, as by servers that restart ----

func serveInherited(ln net.Listener) {
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		panic(err)
	}
	child := exec.Command("/proc/self/exe", "inherited")
	child.ExtraFiles = []*os.File{f}
	child.Stdout, child.Stderr = os.Stderr, os.Stderr
	// Its input ends with us.
	if _, err := child.StdinPipe(); err != nil {
		panic(err)
	}
	if err := child.Start(); err != nil {
		panic(err)
	}
	f.Close()
	ln.Close()
	child.Wait()
}

func inherited() {
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		panic(err)
	}
	go accepted(ln, func(c *net.TCPConn) {
		f, err := c.File()
		if err != nil {
			return
		}
		defer f.Close()
		c.Close()
		again, err := net.FileConn(f)
		if err != nil {
			fmt.Fprintln(os.Stderr, "FileConn:", err)
			return
		}
		defer again.Close()
		echo(again.(*net.TCPConn))
		// The other descriptor is still open.
		again.(*net.TCPConn).CloseWrite()
	})
	io.Copy(io.Discard, os.Stdin)
}

func checkInherited(address string) error {
	return together(5, func(i int) error {
		return with(address, func(c *net.TCPConn) error { return exchange(c, i, 100000) })
	})
}

// ---- options ----

func checkOptions(address string) error {
	return with(address, func(c *net.TCPConn) error {
		local, remote := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
		if remote.String() != address || local.Port == 0 || local.IP.IsUnspecified() {
			return fmt.Errorf("the names are %v and %v", local, remote)
		}
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		option := func(level, name int) (value int) {
			cerr := raw.Control(func(fd uintptr) { value, err = syscall.GetsockoptInt(int(fd), level, name) })
			if err == nil {
				err = cerr
			}
			return value
		}
		// Go sets the first by itself.
		for _, o := range []struct {
			name       string
			set        func() error
			level, opt int
			want       int
		}{
			{"TCP_NODELAY", func() error { return nil }, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
			{"SetNoDelay", func() error { return c.SetNoDelay(false) }, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 0},
			{"SetKeepAlive", func() error { return c.SetKeepAlive(true) }, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
			{"SetKeepAlivePeriod", func() error { return c.SetKeepAlivePeriod(77 * time.Second) }, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 77},
			{"SetReadBuffer", func() error { return c.SetReadBuffer(50000) }, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 100000},
			{"SetWriteBuffer", func() error { return c.SetWriteBuffer(60000) }, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 120000},
			{"SO_TYPE", func() error { return nil }, syscall.SOL_SOCKET, syscall.SO_TYPE, syscall.SOCK_STREAM},
			{"SO_ERROR", func() error { return nil }, syscall.SOL_SOCKET, syscall.SO_ERROR, 0},
		} {
			if serr := o.set(); serr != nil {
				return serr
			}
			if got := option(o.level, o.opt); err != nil || got != o.want {
				return fmt.Errorf("%s: %d, not %d (%v)", o.name, got, o.want, err)
			}
		}
		return exchange(c, 5, 300000)
	})
}

// ---- errors ----

// What becomes of a connection is what its first byte says.
func serveErrors(ln net.Listener) {
	accepted(ln, func(c *net.TCPConn) {
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		switch b[0] {
		case 'r': // a reset, by hand
			c.SetLinger(0)
		case 'u': // something is left unread: a reset, too
		case 'e':
			io.WriteString(c, "the end")
		}
	})
}

func checkErrors(address string) error {
	host, _, _ := net.SplitHostPort(address)
	// asked sends what is to be done, and returns all that comes back.
	asked := func(what string, then func(c *net.TCPConn, got string, err error) error) func() error {
		return func() error {
			return with(address, func(c *net.TCPConn) error {
				if _, err := io.WriteString(c, what); err != nil {
					return err
				}
				got, err := io.ReadAll(c)
				return then(c, string(got), err)
			})
		}
	}
	reset := func(_ *net.TCPConn, got string, err error) error {
		if !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("%q and %v", got, err)
		}
		return nil
	}
	return all(
		step{"refused", func() error {
			return together(5, func(int) error {
				c, err := net.Dial("tcp", net.JoinHostPort(host, port(-1)))
				if err == nil {
					c.Close()
				}
				if !errors.Is(err, syscall.ECONNREFUSED) {
					return fmt.Errorf("it says %v", err)
				}
				return nil
			})
		}},
		step{"reset", asked("r", reset)},
		step{"reset with data unread", asked("u and more", reset)},
		step{"write to who has closed", asked("e", func(c *net.TCPConn, got string, err error) error {
			if got != "the end" || err != nil {
				return fmt.Errorf("%q and %v", got, err)
			}
			for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
				if _, err = io.WriteString(c, "anybody there?"); err != nil {
					break
				}
			}
			if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				return fmt.Errorf("Write says %v", err)
			}
			return nil
		})},
		step{"nobody has the address", func() error {
			c, err := net.DialTimeout("tcp", "192.168.77.250:"+port(0), 300*time.Millisecond)
			if err == nil {
				c.Close()
			}
			var timeout net.Error
			if !(errors.As(err, &timeout) && timeout.Timeout()) && !errors.Is(err, syscall.EHOSTUNREACH) {
				return fmt.Errorf("it says %v", err)
			}
			return nil
		}},
		step{"not this address", func() error {
			_, err := net.Listen("tcp", "192.0.2.1:0")
			if !errors.Is(err, syscall.EADDRNOTAVAIL) {
				return fmt.Errorf("it says %v", err)
			}
			return nil
		}},
		step{"address in use", func() error {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer ln.Close()
			if _, err = net.Listen("tcp", ln.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("it says %v", err)
			}
			return nil
		}},
	)
}

// ---- closing: calls that wait are ended by Close in another goroutine, or a deadline ----

func checkClosing(address string) error {
	return all(
		step{"Read", func() error {
			return with(address, func(c *net.TCPConn) error {
				time.AfterFunc(200*time.Millisecond, func() { c.Close() })
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					return fmt.Errorf("it says %v", err)
				}
				return nil
			})
		}},
		step{"CloseRead", func() error {
			return with(address, func(c *net.TCPConn) error {
				if err := c.CloseRead(); err != nil {
					return err
				}
				if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					return fmt.Errorf("Read says %d, %v", n, err)
				}
				return nil
			})
		}},
		step{"Accept", func() error {
			ln, err := net.Listen("tcp", ":0")
			if err != nil {
				return err
			}
			ln.(*net.TCPListener).SetDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err = ln.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("with a deadline it says %v", err)
			}
			ln.(*net.TCPListener).SetDeadline(time.Time{})
			time.AfterFunc(200*time.Millisecond, func() { ln.Close() })
			if _, err = ln.Accept(); !errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("closed it says %v", err)
			}
			return refused(ln.Addr().(*net.TCPAddr).Port)
		}},
		step{"the same port again", func() error {
			for i := 0; i < 5; i++ {
				ln, err := net.Listen("tcp4", "127.0.0.1:"+port(99))
				if err != nil {
					return err
				}
				go accepted(ln, echo)
				err = with(ln.Addr().String(), func(c *net.TCPConn) error { return exchange(c, i, 10000) })
				ln.Close()
				if err != nil {
					return err
				}
			}
			return nil
		}},
		step{"each end of many, at once", func() error {
			return together(30, func(i int) error {
				return with(address, func(c *net.TCPConn) error {
					go c.Write(make([]byte, 100000))
					go c.Close()
					_, err := io.Copy(io.Discard, c)
					if err != nil && !errors.Is(err, net.ErrClosed) {
						return err
					}
					return nil
				})
			})
		}},
	)
}

func refused(port int) error {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("then Dial says %v", err)
	}
	return nil
}
