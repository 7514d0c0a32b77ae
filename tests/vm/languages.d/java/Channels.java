// SPDX-License-Identifier: GPL-2.0-or-later

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;

/** java.nio: one thread with a selector on each side, and channels that block. */
final class Channels {
	// ---- selectors: an echo for all connections at once ----

	static void serveSelector(int port) throws IOException {
		Selector selector = Selector.open();
		ServerSocketChannel server = ServerSocketChannel.open();
		server.bind(new InetSocketAddress(port), 200);
		server.configureBlocking(false);
		server.register(selector, SelectionKey.OP_ACCEPT);
		Traffic.THREADS.submit(() -> {
			while (true)
				selector.select(key -> {
					try {
						if (key.isAcceptable())
							accept(server, selector);
						else
							echo(key);
					} catch (IOException e) {
						key.cancel();
					}
				});
		});
	}

	static void accept(ServerSocketChannel server, Selector selector) throws IOException {
		for (SocketChannel channel; (channel = server.accept()) != null; ) {
			channel.configureBlocking(false);
			channel.register(selector, SelectionKey.OP_READ, ByteBuffer.allocateDirect(60000));
		}
	}

	/** Who does not take what is his is not read from. */
	static void echo(SelectionKey key) throws IOException {
		SocketChannel channel = (SocketChannel) key.channel();
		ByteBuffer buffer = (ByteBuffer) key.attachment();
		if (key.isReadable()) {
			int n = channel.read(buffer);
			if (n < 0) {
				channel.close();
				return;
			}
		}
		buffer.flip();
		channel.write(buffer);
		buffer.compact();
		key.interestOps((buffer.hasRemaining() ? SelectionKey.OP_READ : 0) | (buffer.position() > 0 ? SelectionKey.OP_WRITE : 0));
	}

	static final class Client {
		final ByteBuffer out, in;
		final byte[] bytes;

		Client(int seed, int size) {
			bytes = Traffic.data(seed, size);
			out = ByteBuffer.wrap(bytes);
			in = ByteBuffer.allocate(size);
		}
	}

	static void checkSelector(InetSocketAddress server) throws Exception {
		int left = 50;
		try (Selector selector = Selector.open()) {
			for (int i = 0; i < left; i++) {
				SocketChannel channel = SocketChannel.open();
				channel.configureBlocking(false);
				boolean connected = channel.connect(server);
				channel.register(selector, connected ? SelectionKey.OP_READ | SelectionKey.OP_WRITE : SelectionKey.OP_CONNECT,
					new Client(i, 150000));
			}
			while (left > 0) {
				selector.select();
				for (SelectionKey key : selector.selectedKeys())
					if (step(key))
						left--;
				selector.selectedKeys().clear();
			}
		}
	}

	/** True: all came back. */
	static boolean step(SelectionKey key) throws IOException {
		SocketChannel channel = (SocketChannel) key.channel();
		Client client = (Client) key.attachment();
		if (key.isConnectable() && channel.finishConnect())
			key.interestOps(SelectionKey.OP_READ | SelectionKey.OP_WRITE);
		if (key.isValid() && key.isWritable()) {
			channel.write(client.out);
			if (!client.out.hasRemaining())
				key.interestOps(SelectionKey.OP_READ);
		}
		if (key.isReadable() && channel.read(client.in) < 0)
			throw new IOException("the server ends after " + client.in.position() + " bytes");
		if (client.in.hasRemaining())
			return false;
		Traffic.same(client.in.array(), client.bytes);
		channel.close();
		return true;
	}

	// ---- channels that block: sendfile, and buffers in one go ----

	static final int SIZE = 3000001;

	static void serveFile(int port) throws IOException {
		Path path = Files.createTempFile("traffic", "");
		Files.write(path, Traffic.data(1, SIZE));
		path.toFile().deleteOnExit();
		ServerSocketChannel server = ServerSocketChannel.open().bind(new InetSocketAddress(port));
		Traffic.THREADS.submit(() -> {
			while (true) {
				SocketChannel channel = server.accept();
				Traffic.THREADS.submit(() -> {
					try (channel; FileChannel file = FileChannel.open(path)) {
						for (long at = 0; at < SIZE; )
							at += file.transferTo(at, SIZE - at, channel);
						channel.shutdownOutput();
						// And back again.
						ByteBuffer[] buffers = {ByteBuffer.allocate(10), ByteBuffer.allocateDirect(20000)};
						while (channel.read(buffers) >= 0 && buffers[1].hasRemaining())
							continue;
						return null;
					}
				});
			}
		});
	}

	static void checkFile(InetSocketAddress server) throws Exception {
		byte[] bytes = Traffic.data(1, SIZE);
		Path path = Files.createTempFile("traffic", "");
		try (SocketChannel channel = SocketChannel.open(server);
				FileChannel file = FileChannel.open(path, StandardOpenOption.WRITE)) {
			Traffic.equal("getRemoteAddress", channel.getRemoteAddress(), server);
			for (long at = 0, n; (n = file.transferFrom(channel, at, 1 << 20)) > 0; )
				at += n;
			Traffic.same(Files.readAllBytes(path), bytes);
			ByteBuffer[] buffers = {ByteBuffer.wrap(bytes, 0, 7), ByteBuffer.allocateDirect(20000), ByteBuffer.wrap(bytes, 0, 3)};
			while (Arrays.stream(buffers).anyMatch(ByteBuffer::hasRemaining))
				channel.write(buffers);
			Traffic.equal("the end", channel.read(ByteBuffer.allocate(1)), -1);
		} finally {
			Files.delete(path);
		}
		// The channel's own socket, with a limit.
		try (ServerSocketChannel own = ServerSocketChannel.open().bind(null)) {
			own.socket().setSoTimeout(100);
			Traffic.throwsA(SocketTimeoutException.class, null, () -> own.socket().accept());
			try (SocketChannel one = SocketChannel.open(new InetSocketAddress("127.0.0.1", own.socket().getLocalPort()));
					SocketChannel other = own.accept()) {
				one.socket().setSoTimeout(100);
				Traffic.throwsA(SocketTimeoutException.class, null, () -> one.socket().getInputStream().read());
				other.write(ByteBuffer.wrap(new byte[] {5}));
				one.socket().setSoTimeout(20000);
				Traffic.equal("read()", one.socket().getInputStream().read(), 5);
			}
		}
	}

	private Channels() {}
}
