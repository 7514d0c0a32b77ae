// SPDX-License-Identifier: GPL-2.0-or-later

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.net.StandardSocketOptions;
import java.util.Arrays;
import java.util.concurrent.Future;
import jdk.net.ExtendedSocketOptions;

/** java.net.Socket and ServerSocket: calls that block, and a thread for each connection. */
final class Sockets {
	interface Handler {
		void handle(Socket socket) throws Exception;
	}

	static void accept(ServerSocket server, Handler handler) {
		Traffic.THREADS.submit(() -> {
			while (true) {
				Socket socket = server.accept();
				Traffic.THREADS.submit(() -> {
					try (socket) {
						handler.handle(socket);
					}
					return null;
				});
			}
		});
	}

	static void serveEcho(int port) throws IOException {
		accept(new ServerSocket(port, 200), Sockets::echo);
	}

	static void echo(Socket socket) throws IOException {
		socket.getInputStream().transferTo(socket.getOutputStream());
		socket.shutdownOutput();
	}

	static void checkEcho(InetSocketAddress server) throws Exception {
		Traffic.together(30, i -> {
			try (Socket socket = new Socket(server.getAddress(), server.getPort())) {
				exchange(socket, i, 200000);
			}
		});
	}

	/** Written by one thread, in pieces of all sizes, and read by another. */
	static void exchange(Socket socket, int seed, int size) throws Exception {
		byte[] bytes = Traffic.data(seed, size);
		Future<?> writer = Traffic.THREADS.submit(() -> {
			OutputStream out = socket.getOutputStream();
			for (int at = 0, piece = 1; at < size; at += piece, piece = Math.min(piece * 3 % 29989 + 1, size - at))
				out.write(bytes, at, piece);
			socket.shutdownOutput();
			return null;
		});
		Traffic.expect(socket.getInputStream(), bytes);
		writer.get();
	}

	// ---- the answer comes after the end ----

	static void serveSum(int port) throws IOException {
		accept(new ServerSocket(port), socket -> {
			byte[] got = socket.getInputStream().readAllBytes();
			socket.getOutputStream().write((got.length + " " + Arrays.hashCode(got)).getBytes());
		});
	}

	static void checkHalfClose(InetSocketAddress server) throws Exception {
		Traffic.together(10, i -> {
			byte[] bytes = Traffic.data(i, i * 77777);
			try (Socket socket = new Socket(server.getAddress(), server.getPort())) {
				socket.getOutputStream().write(bytes);
				socket.shutdownOutput();
				Traffic.equal("isOutputShutdown", socket.isOutputShutdown(), true);
				Traffic.throwsA(SocketException.class, "shutdown", () -> socket.getOutputStream().write(1));
				Traffic.expect(socket.getInputStream(), (bytes.length + " " + Arrays.hashCode(bytes)).getBytes());
			}
		});
		try (Socket socket = new Socket(server.getAddress(), server.getPort())) {
			InputStream in = socket.getInputStream();
			socket.shutdownInput();
			Traffic.equal("read() after shutdownInput", in.read(), -1);
		}
	}

	// ---- SO_TIMEOUT and connect() with a limit ----

	static void checkTimeouts(InetSocketAddress server) throws Exception {
		try (Socket socket = new Socket()) {
			socket.connect(server, 20000);
			InputStream in = socket.getInputStream();
			for (int i = 0; i < 3; i++) {
				socket.setSoTimeout(100);
				long begun = System.nanoTime();
				Traffic.throwsA(SocketTimeoutException.class, "Read timed out", in::read);
				if (System.nanoTime() - begun < 90000000L)
					throw new AssertionError("it did not wait");
				// It goes on.
				socket.setSoTimeout(20000);
				socket.getOutputStream().write(i);
				Traffic.equal("what comes back", in.read(), i);
			}
			exchange(socket, 1, 100000);
		}
		try (ServerSocket own = new ServerSocket(0)) {
			own.setSoTimeout(100);
			Traffic.throwsA(SocketTimeoutException.class, "Accept timed out", own::accept);
			own.setSoTimeout(20000);
			try (Socket one = new Socket("127.0.0.1", own.getLocalPort()); Socket other = own.accept()) {
				one.getOutputStream().write(7);
				Traffic.equal("what comes by an accepted socket", other.getInputStream().read(), 7);
			}
		}
		try (Socket socket = new Socket()) {
			// Nobody has that address. How soon the kernel says so depends.
			Traffic.throwsA(IOException.class, null, () -> socket.connect(new InetSocketAddress("192.168.77.250", server.getPort()), 300));
		}
	}

	// ---- options, names, an urgent byte ----

	static void checkOptions(InetSocketAddress server) throws Exception {
		try (Socket socket = new Socket()) {
			socket.setReceiveBufferSize(50000);
			socket.setReuseAddress(true);
			socket.bind(null);
			int port = socket.getLocalPort();
			socket.connect(server);
			Traffic.equal("getLocalPort", socket.getLocalPort(), port);
			Traffic.equal("getRemoteSocketAddress", socket.getRemoteSocketAddress(), server);
			if (socket.getLocalAddress().isAnyLocalAddress())
				throw new AssertionError("it has no local address");
			socket.setTcpNoDelay(true);
			Traffic.equal("TCP_NODELAY", socket.getTcpNoDelay(), true);
			socket.setKeepAlive(true);
			Traffic.equal("SO_KEEPALIVE", socket.getKeepAlive(), true);
			socket.setOption(ExtendedSocketOptions.TCP_KEEPIDLE, 77);
			Traffic.equal("TCP_KEEPIDLE", socket.getOption(ExtendedSocketOptions.TCP_KEEPIDLE), 77);
			socket.setOption(ExtendedSocketOptions.TCP_QUICKACK, true);
			socket.setSoLinger(true, 5);
			Traffic.equal("SO_LINGER", socket.getSoLinger(), 5);
			socket.setTrafficClass(0x10);
			Traffic.equal("IP_TOS", socket.getTrafficClass(), 0x10);
			socket.setOption(StandardSocketOptions.SO_SNDBUF, 60000);
			if (socket.getSendBufferSize() < 60000)
				throw new AssertionError("SO_SNDBUF: " + socket.getSendBufferSize());
			socket.setOOBInline(true);
			Traffic.equal("SO_OOBINLINE", socket.getOOBInline(), true);
			exchange(socket, 3, 200000);
		}
		try (ServerSocket own = new ServerSocket()) {
			own.setOption(StandardSocketOptions.SO_REUSEPORT, true);
			own.bind(new InetSocketAddress(0));
			try (Socket one = new Socket("127.0.0.1", own.getLocalPort()); Socket other = own.accept()) {
				other.setOOBInline(true);
				one.getOutputStream().write(new byte[] {1, 2});
				one.sendUrgentData(3);
				one.getOutputStream().write(4);
				for (int want = 1; want <= 4; want++)
					Traffic.equal("with an urgent byte in between", other.getInputStream().read(), want);
			}
		}
	}

	private Sockets() {}
}
