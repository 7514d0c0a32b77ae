// SPDX-License-Identifier: GPL-2.0-or-later

import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/**
 * What Java programs do with TCP, for tests/vm/languages: a server for each of several parts, and a client that checks what it
 * gets from them.
 *
 *   serve HOST       until it is killed; says "ready" when all servers listen; RMI tells its clients that HOST is where it is
 *   check HOST...    a line for each part and host, "pass HOST NAME" or "fail HOST NAME: why"; status 1 if one failed
 *   self             both in one process, over 127.0.0.1
 */
public final class Traffic {
	/** Listens when it returns; what serves has threads of its own. */
	interface Server {
		void serve(int port) throws Exception;
	}

	interface Check {
		void check(InetSocketAddress server) throws Exception;
	}

	record Part(String name, Server server, Check check) {}

	static final int FIRST_PORT = 7201; // and nobody listens on the one before

	static final List<Part> PARTS = List.of(
		new Part("sockets", Sockets::serveEcho, Sockets::checkEcho),
		new Part("half-close", Sockets::serveSum, Sockets::checkHalfClose),
		new Part("timeouts", Sockets::serveEcho, Sockets::checkTimeouts),
		new Part("objects", Objects::serve, Objects::check),
		new Part("options", Sockets::serveEcho, Sockets::checkOptions),
		new Part("selector", Channels::serveSelector, Channels::checkSelector),
		new Part("channels", Channels::serveFile, Channels::checkFile),
		new Part("asynchronous", Asynchronous::serve, Asynchronous::check),
		new Part("http", Web::serve, Web::check),
		new Part("http2", Http2::serve, Http2::check),
		new Part("rmi", Objects::serveRmi, Objects::checkRmi),
		new Part("errors", Errors::serve, Errors::check),
		new Part("closing", Sockets::serveEcho, Errors::checkClosing));

	static final int LIMIT_S = 200; // of one part

	/** Threads that end with the program. */
	static final ExecutorService THREADS = Executors.newCachedThreadPool(task -> {
		Thread thread = new Thread(task);
		thread.setDaemon(true);
		return thread;
	});

	static void serve() throws Exception {
		for (int i = 0; i < PARTS.size(); i++)
			PARTS.get(i).server().serve(FIRST_PORT + i);
	}

	static boolean check(String host) throws Exception {
		boolean good = true;
		for (int i = 0; i < PARTS.size(); i++) {
			Part part = PARTS.get(i);
			InetSocketAddress server = new InetSocketAddress(host, FIRST_PORT + i);
			long begun = System.nanoTime();
			Future<?> done = THREADS.submit(() -> {
				part.check().check(server);
				return null;
			});
			try {
				done.get(LIMIT_S, TimeUnit.SECONDS);
				System.out.printf("pass %s %s in %.1f s%n", host, part.name(), (System.nanoTime() - begun) / 1e9);
			} catch (ExecutionException e) {
				System.out.println("fail " + host + " " + part.name() + ": " + e.getCause());
				e.getCause().printStackTrace(System.out);
				good = false;
			} catch (java.util.concurrent.TimeoutException e) {
				System.out.println("fail " + host + " " + part.name() + ": it hangs");
				for (Map.Entry<Thread, StackTraceElement[]> thread : Thread.getAllStackTraces().entrySet())
					System.out.println(thread.getKey() + " " + Arrays.toString(thread.getValue()));
				return false;
			}
		}
		return good;
	}

	public static void main(String[] words) throws Exception {
		boolean good = true;
		String what = words.length > 0 ? words[0] : "";
		if (what.equals("serve") && words.length == 2) {
			System.setProperty("java.rmi.server.hostname", words[1]);
			serve();
			System.out.println("ready");
			Thread.sleep(Long.MAX_VALUE);
		} else if (what.equals("check") && words.length >= 2) {
			for (String host : Arrays.asList(words).subList(1, words.length))
				good &= check(host);
		} else if (what.equals("self")) {
			System.setProperty("java.rmi.server.hostname", "127.0.0.1");
			serve();
			good = check("127.0.0.1");
		} else {
			System.err.println("usage: Traffic serve HOST | check HOST... | self");
			System.exit(2);
		}
		// What serves does not end by itself.
		System.out.flush();
		System.exit(good ? 0 : 1);
	}

	// ---- data, and what the parts have in common ----

	/** Bytes that depend on the seed and their place. */
	static byte[] data(long seed, int size) {
		byte[] bytes = new byte[size];
		long state = seed * 0x9e3779b97f4a7c15L + 1;
		for (int i = 0; i < size; i++) {
			if (i % 8 == 0) {
				state ^= state << 13;
				state ^= state >>> 7;
				state ^= state << 17;
			}
			bytes[i] = (byte) (state >>> (8 * (i % 8)));
		}
		return bytes;
	}

	/** All there is until the end, which must be that. */
	static void expect(InputStream in, byte[] want) throws IOException {
		same(in.readAllBytes(), want);
	}

	static void same(byte[] got, byte[] want) {
		if (got.length != want.length)
			throw new AssertionError(got.length + " bytes came of " + want.length);
		int where = Arrays.mismatch(got, want);
		if (where >= 0)
			throw new AssertionError("byte " + where + " of " + want.length + " is another");
	}

	static void equal(String what, Object got, Object want) {
		if (!got.equals(want))
			throw new AssertionError(what + ": " + got + ", not " + want);
	}

	interface Task {
		void run() throws Exception;
	}

	interface NumberedTask {
		void run(int i) throws Exception;
	}

	/** The exception that it must end with; a part of its message says which one of that class. */
	static void throwsA(Class<? extends Throwable> wanted, String message, Task task) throws Exception {
		try {
			task.run();
		} catch (Throwable t) {
			if (wanted.isInstance(t) && (message == null || String.valueOf(t.getMessage()).contains(message)))
				return;
			throw new AssertionError("not " + wanted.getSimpleName() + " (" + message + ") but " + t, t);
		}
		throw new AssertionError("no " + wanted.getSimpleName());
	}

	/** In so many threads at once. */
	static void together(int n, NumberedTask task) throws Exception {
		List<Future<?>> tasks = new ArrayList<>();
		for (int i = 0; i < n; i++) {
			int number = i;
			tasks.add(THREADS.submit(() -> {
				task.run(number);
				return null;
			}));
		}
		for (Future<?> each : tasks)
			each.get();
	}

	/** Soon, by another thread. */
	static void soon(Task task) {
		THREADS.submit(() -> {
			Thread.sleep(300);
			task.run();
			return null;
		});
	}

	private Traffic() {}
}
