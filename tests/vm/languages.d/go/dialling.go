// SPDX-License-Identifier: GPL-2.0-or-later

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// ---- dialling: addresses chosen, attempts that are given up, listeners that share a port ----

const soReuseport = 15 // package syscall does not have it

func checkDialling(address string) error {
	return all(
		step{"from an address", func() error {
			var local *net.TCPAddr
			err := with(address, func(c *net.TCPConn) error {
				local = c.LocalAddr().(*net.TCPAddr)
				return nil
			})
			if err != nil {
				return err
			}
			// And then from a port, too.
			for _, from := range []*net.TCPAddr{{IP: local.IP}, {IP: local.IP, Port: firstPort - 2}} {
				c, err := net.DialTCP("tcp", from, resolved(address))
				if err != nil {
					return err
				}
				defer c.Close()
				got := c.LocalAddr().(*net.TCPAddr)
				if !got.IP.Equal(local.IP) || (from.Port != 0 && got.Port != from.Port) {
					return fmt.Errorf("it is from %v, not %v", got, from)
				}
				b := make([]byte, 5)
				if _, err := io.WriteString(c, "hello"); err != nil {
					return err
				}
				if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
					return fmt.Errorf("%q, %v", b, err)
				}
				// Nothing is to keep the port.
				c.SetLinger(0)
			}
			return nil
		}},
		step{"given up", func() error {
			return together(60, func(i int) error {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.Intn(3000))*time.Microsecond)
				defer cancel()
				var d net.Dialer
				c, err := d.DialContext(ctx, "tcp", address)
				if err == nil {
					defer c.Close()
					return exchange(c.(*net.TCPConn), i, 1000)
				}
				var timeout net.Error
				if !errors.As(err, &timeout) || !timeout.Timeout() {
					return err
				}
				return nil
			})
		}},
		step{"and then it goes on", func() error { return checkInherited(address) }},
		step{"a port for each family", func() error {
			return servers([]string{"tcp4", "tcp6"}, "127.0.0.1:"+port(98), "[::1]:"+port(98))
		}},
		step{"a port for four listeners", func() error {
			return servers([]string{"tcp", "tcp", "tcp", "tcp"}, "127.0.0.1:"+port(98))
		}},
		step{"localhost, of which one address is refused", func() error {
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer ln.Close()
			go accepted(ln, echo)
			return together(5, func(i int) error {
				return with(fmt.Sprintf("localhost:%d", ln.Addr().(*net.TCPAddr).Port), func(c *net.TCPConn) error { return exchange(c, i, 1000) })
			})
		}},
	)
}

func resolved(address string) *net.TCPAddr {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		panic(err)
	}
	return a
}

// servers listens by SO_REUSEPORT for each of these networks, and connects to the addresses: all listeners get something.
func servers(networks []string, addresses ...string) error {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReuseport, 1) })
		if err == nil {
			err = cerr
		}
		return err
	}}
	served := make([]int32, len(networks))
	for i, network := range networks {
		ln, err := config.Listen(context.Background(), network, ":"+port(98))
		if err != nil {
			return err
		}
		defer ln.Close()
		count := &served[i]
		go accepted(ln, func(c *net.TCPConn) {
			atomic.AddInt32(count, 1)
			echo(c)
		})
	}
	err := together(40, func(i int) error {
		return with(addresses[i%len(addresses)], func(c *net.TCPConn) error { return exchange(c, i, 1000) })
	})
	for i := range served {
		if n := atomic.LoadInt32(&served[i]); n == 0 && err == nil {
			err = fmt.Errorf("of %v listener %d got nothing", networks, i)
		}
	}
	return err
}
