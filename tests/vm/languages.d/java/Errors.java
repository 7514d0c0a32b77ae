// SPDX-License-Identifier: GPL-2.0-or-later

import java.io.IOException;
import java.io.OutputStream;
import java.net.BindException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousSocketChannel;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

/** What goes wrong, and calls that wait when another thread closes. */
final class Errors {
	/** What becomes of a connection is what its first byte says. */
	static void serve(int port) throws IOException {
		Sockets.accept(new ServerSocket(port), socket -> {
			switch (socket.getInputStream().read()) {
			case 'r': // a reset, by hand
				socket.setSoLinger(true, 0);
				break;
			case 'e':
				socket.getOutputStream().write("the end".getBytes());
				break;
			}
		});
	}

	static Socket asked(InetSocketAddress server, String what) throws IOException {
		Socket socket = new Socket(server.getAddress(), server.getPort());
		socket.getOutputStream().write(what.getBytes());
		return socket;
	}

	static void check(InetSocketAddress server) throws Exception {
		InetSocketAddress nobody = new InetSocketAddress(server.getAddress(), Traffic.FIRST_PORT - 1);
		Traffic.throwsA(ConnectException.class, "Connection refused", () -> new Socket(nobody.getAddress(), nobody.getPort()));
		Traffic.throwsA(ConnectException.class, "Connection refused", () -> new Socket().connect(nobody, 20000));
		Traffic.throwsA(ConnectException.class, "Connection refused", () -> SocketChannel.open(nobody));
		try (AsynchronousSocketChannel channel = AsynchronousSocketChannel.open()) {
			Asynchronous.causes(ConnectException.class, channel.connect(nobody));
		}
		try (SocketChannel channel = SocketChannel.open(); Selector selector = Selector.open()) {
			channel.configureBlocking(false);
			Traffic.throwsA(ConnectException.class, "Connection refused", () -> {
				if (channel.connect(nobody))
					return;
				channel.register(selector, SelectionKey.OP_CONNECT);
				selector.select();
				channel.finishConnect();
			});
		}

		try (Socket socket = asked(server, "r")) {
			Traffic.throwsA(SocketException.class, "Connection reset", () -> socket.getInputStream().read());
		}
		try (Socket socket = asked(server, "e")) {
			Traffic.expect(socket.getInputStream(), "the end".getBytes());
			OutputStream out = socket.getOutputStream();
			Traffic.throwsA(SocketException.class, null, () -> {
				for (int i = 0; i < 1000; i++) {
					out.write(1);
					Thread.sleep(20);
				}
			});
		}

		try (ServerSocket own = new ServerSocket(0)) {
			Traffic.throwsA(BindException.class, "Address already in use", () -> new ServerSocket(own.getLocalPort()));
		}
		Traffic.throwsA(BindException.class, null, () -> new ServerSocket(0, 1, InetAddress.getByName("192.0.2.1")));
	}

	// ---- another thread closes, or interrupts ----

	static void checkClosing(InetSocketAddress server) throws Exception {
		for (int i = 0; i < 3; i++) {
			Socket socket = new Socket(server.getAddress(), server.getPort());
			Traffic.soon(socket::close);
			Traffic.throwsA(SocketException.class, "losed", () -> socket.getInputStream().read());

			ServerSocket own = new ServerSocket(0);
			Traffic.soon(own::close);
			Traffic.throwsA(SocketException.class, "losed", own::accept);
			Traffic.throwsA(ConnectException.class, "Connection refused", () -> new Socket("127.0.0.1", own.getLocalPort()));

			SocketChannel channel = SocketChannel.open(server);
			Traffic.soon(channel::close);
			Traffic.throwsA(ClosedChannelException.class, null, () -> channel.read(ByteBuffer.allocate(1)));

			ServerSocketChannel accepting = ServerSocketChannel.open().bind(null);
			Traffic.soon(accepting::close);
			Traffic.throwsA(ClosedChannelException.class, null, accepting::accept);

			SocketChannel interrupted = SocketChannel.open(server);
			Thread reader = Thread.currentThread();
			Traffic.soon(reader::interrupt);
			Traffic.throwsA(ClosedByInterruptException.class, null, () -> interrupted.read(ByteBuffer.allocate(1)));
			Traffic.equal("isOpen", interrupted.isOpen(), false);
			Thread.interrupted();

			// A peer that reads nothing, until nothing can be written.
			try (ServerSocket quiet = new ServerSocket(0); Socket full = new Socket("127.0.0.1", quiet.getLocalPort())) {
				Traffic.soon(full::close);
				Traffic.throwsA(SocketException.class, "losed", () -> {
					while (true)
						full.getOutputStream().write(new byte[1 << 20]);
				});
			}
		}
		Traffic.together(30, i -> {
			Socket socket = new Socket(server.getAddress(), server.getPort());
			Traffic.THREADS.submit(() -> {
				socket.getOutputStream().write(new byte[100000]);
				return null;
			});
			Traffic.THREADS.submit(() -> {
				socket.close();
				return null;
			});
			try {
				socket.getInputStream().readAllBytes();
				throw new AssertionError("it came to an end");
			} catch (SocketException e) {
				// as it should
			}
		});
	}

	private Errors() {}
}
