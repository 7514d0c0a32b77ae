// SPDX-License-Identifier: GPL-2.0-or-later

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousCloseException;
import java.nio.channels.AsynchronousServerSocketChannel;
import java.nio.channels.AsynchronousSocketChannel;
import java.nio.channels.CompletionHandler;
import java.nio.channels.InterruptedByTimeoutException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/** Asynchronous channels, with handlers and with futures. */
final class Asynchronous {
	/** A handler that is a future, too. */
	static class Told<T> extends CompletableFuture<T> implements CompletionHandler<T, Void> {
		public void completed(T result, Void nothing) {
			complete(result);
		}

		public void failed(Throwable why, Void nothing) {
			completeExceptionally(why);
		}
	}

	/** One connection to the server: a buffer is read, written until it is empty, and so on. */
	static final class Echo implements CompletionHandler<Integer, Boolean> {
		final AsynchronousSocketChannel channel;
		final ByteBuffer buffer = ByteBuffer.allocateDirect(30000);

		Echo(AsynchronousSocketChannel channel) {
			this.channel = channel;
			channel.read(buffer, true, this);
		}

		public void completed(Integer n, Boolean wasRead) {
			if (n < 0) {
				failed(null, wasRead);
				return;
			}
			if (wasRead)
				buffer.flip();
			if (buffer.hasRemaining())
				channel.write(buffer, false, this);
			else
				channel.read(buffer.clear(), true, this);
		}

		public void failed(Throwable why, Boolean wasRead) {
			try {
				channel.close();
			} catch (IOException e) {
				throw new UncheckedIOException(e);
			}
		}
	}

	static void serve(int port) throws IOException {
		AsynchronousServerSocketChannel server = AsynchronousServerSocketChannel.open();
		server.bind(new InetSocketAddress(port), 200);
		server.accept(null, new CompletionHandler<AsynchronousSocketChannel, Void>() {
			public void completed(AsynchronousSocketChannel channel, Void nothing) {
				server.accept(null, this);
				new Echo(channel);
			}

			public void failed(Throwable why, Void nothing) {
				throw new IllegalStateException(why);
			}
		});
	}

	static void check(InetSocketAddress server) throws Exception {
		Traffic.together(30, i -> {
			byte[] bytes = Traffic.data(i, 150000);
			try (AsynchronousSocketChannel channel = AsynchronousSocketChannel.open()) {
				channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
				channel.connect(server).get();
				ByteBuffer out = ByteBuffer.wrap(bytes), in = ByteBuffer.allocate(bytes.length);
				Told<Integer> wrote = new Told<>() {
					public void completed(Integer n, Void nothing) {
						if (out.hasRemaining())
							channel.write(out, null, this);
						else
							complete(n);
					}
				};
				channel.write(out, null, wrote);
				while (in.hasRemaining())
					if (channel.read(in).get() < 0)
						throw new AssertionError("the server ends after " + in.position() + " bytes");
				wrote.get();
				Traffic.same(in.array(), bytes);
				channel.shutdownOutput();
				Traffic.equal("the end", channel.read(ByteBuffer.allocate(1)).get(), -1);
			}
		});
		try (AsynchronousSocketChannel channel = AsynchronousSocketChannel.open()) {
			channel.connect(server).get();
			Told<Integer> read = new Told<>();
			channel.read(ByteBuffer.allocate(1), 200, TimeUnit.MILLISECONDS, null, read);
			causes(InterruptedByTimeoutException.class, read);
		}
		AsynchronousSocketChannel channel = AsynchronousSocketChannel.open();
		channel.connect(server).get();
		Future<Integer> read = channel.read(ByteBuffer.allocate(1));
		Traffic.soon(channel::close);
		causes(AsynchronousCloseException.class, read);

		AsynchronousServerSocketChannel own = AsynchronousServerSocketChannel.open().bind(null);
		Future<AsynchronousSocketChannel> accept = own.accept();
		Traffic.soon(own::close);
		causes(AsynchronousCloseException.class, accept);
	}

	static void causes(Class<? extends Throwable> wanted, Future<?> future) throws Exception {
		Traffic.throwsA(wanted, null, () -> {
			try {
				future.get();
			} catch (ExecutionException e) {
				throw (Exception) e.getCause();
			}
		});
	}

	private Asynchronous() {}
}
