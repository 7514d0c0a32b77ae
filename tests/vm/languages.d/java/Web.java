// SPDX-License-Identifier: GPL-2.0-or-later

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.ConnectException;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.SocketTimeoutException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.HttpTimeoutException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;

/** com.sun.net.httpserver's server, with java.net.http's client and the old one. */
final class Web {
	static final int BIG = 4 << 20;

	/** What /lines waits for between its lines. */
	static final Semaphore next = new Semaphore(0);

	static void serve(int port) throws IOException {
		HttpServer server = HttpServer.create(new InetSocketAddress(port), 200);
		server.setExecutor(Traffic.THREADS);
		// Who asks: a connection that is kept has the same port.
		server.createContext("/port", exchange -> answer(exchange, String.valueOf(exchange.getRemoteAddress().getPort()).getBytes(), true));
		server.createContext("/sum", exchange -> {
			byte[] got = exchange.getRequestBody().readAllBytes();
			String framing = exchange.getRequestHeaders().getFirst("Transfer-encoding");
			answer(exchange, (got.length + " " + Arrays.hashCode(got) + " " + framing).getBytes(), true);
		});
		server.createContext("/data", exchange -> {
			String[] words = exchange.getRequestURI().getQuery().split("&");
			answer(exchange, Traffic.data(Integer.parseInt(words[0]), Integer.parseInt(words[1])), words[2].equals("whole"));
		});
		server.createContext("/slow", exchange -> {
			Traffic.THREADS.submit(() -> {
				Thread.sleep(2000);
				exchange.close();
				return null;
			});
		});
		server.createContext("/lines", exchange -> {
			exchange.sendResponseHeaders(200, 0);
			try (OutputStream out = exchange.getResponseBody()) {
				out.write("first\n".getBytes());
				out.flush();
				next.acquireUninterruptibly();
				out.write("second\n".getBytes());
			}
		});
		server.createContext("/next", exchange -> {
			next.release();
			answer(exchange, new byte[0], true);
		});
		server.start();
	}

	/** whole: its length goes before it; else it is chunked. */
	static void answer(HttpExchange exchange, byte[] body, boolean whole) throws IOException {
		exchange.getRequestBody().readAllBytes();
		exchange.sendResponseHeaders(200, !whole ? 0 : body.length == 0 ? -1 : body.length);
		try (OutputStream out = exchange.getResponseBody()) {
			out.write(body);
		}
	}

	static URI uri(InetSocketAddress server, String path) {
		String host = server.getAddress().getHostAddress();
		return URI.create("http://" + (host.contains(":") ? "[" + host + "]" : host) + ":" + server.getPort() + path);
	}

	static HttpRequest get(InetSocketAddress server, String path) {
		return HttpRequest.newBuilder(uri(server, path)).timeout(Duration.ofSeconds(100)).build();
	}

	static <T> T ok(HttpResponse<T> response) {
		Traffic.equal("status", response.statusCode(), 200);
		Traffic.equal("version", response.version(), HttpClient.Version.HTTP_1_1);
		return response.body();
	}

	static void upload(HttpClient client, InetSocketAddress server, byte[] bytes, BodyPublisher body, String framing) throws Exception {
		HttpRequest request = HttpRequest.newBuilder(uri(server, "/sum")).POST(body).build();
		Traffic.equal("what was uploaded", ok(client.send(request, BodyHandlers.ofString())),
			bytes.length + " " + Arrays.hashCode(bytes) + " " + framing);
	}

	static void check(InetSocketAddress server) throws Exception {
		HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
		// One connection for requests one after the other.
		String port = ok(client.send(get(server, "/port"), BodyHandlers.ofString()));
		for (int i = 0; i < 30; i++)
			Traffic.equal("the client's port", ok(client.send(get(server, "/port"), BodyHandlers.ofString())), port);

		byte[] big = Traffic.data(1, BIG);
		upload(client, server, big, BodyPublishers.ofByteArray(big), "null");
		upload(client, server, big, BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(big)), "chunked");
		Traffic.same(ok(client.send(get(server, "/data?2&" + BIG + "&whole"), BodyHandlers.ofByteArray())), Traffic.data(2, BIG));
		Traffic.same(ok(client.send(get(server, "/data?3&" + BIG + "&chunked"), BodyHandlers.ofByteArray())), Traffic.data(3, BIG));
		byte[] after = Traffic.data(4, 100000);
		Traffic.equal("100 Continue", ok(client.send(HttpRequest.newBuilder(uri(server, "/sum")).expectContinue(true)
			.POST(BodyPublishers.ofByteArray(after)).build(), BodyHandlers.ofString())), after.length + " " + Arrays.hashCode(after) + " null");

		// Thirty at once.
		List<CompletableFuture<HttpResponse<byte[]>>> all = new ArrayList<>();
		for (int i = 0; i < 30; i++)
			all.add(client.sendAsync(get(server, "/data?" + i + "&" + i * 10000 + "&chunked"), BodyHandlers.ofByteArray()));
		for (int i = 0; i < 30; i++)
			Traffic.same(ok(all.get(i).get()), Traffic.data(i, i * 10000));

		// Lines as they are made.
		try (BufferedReader lines = new BufferedReader(new InputStreamReader(
				ok(client.send(get(server, "/lines"), BodyHandlers.ofInputStream()))))) {
			Traffic.equal("the first line", lines.readLine(), "first");
			ok(client.send(get(server, "/next"), BodyHandlers.discarding()));
			Traffic.equal("the second line", lines.readLine(), "second");
		}

		Traffic.throwsA(HttpTimeoutException.class, null, () -> client.send(
			HttpRequest.newBuilder(uri(server, "/slow")).timeout(Duration.ofMillis(400)).build(), BodyHandlers.discarding()));
		Traffic.throwsA(IOException.class, null, () -> client.send(get(server, "/slow"), BodyHandlers.discarding()));
		Traffic.throwsA(ConnectException.class, null, () -> client.send(
			get(new InetSocketAddress(server.getAddress(), Traffic.FIRST_PORT - 1), "/"), BodyHandlers.discarding()));
		old(server);
	}

	/** HttpURLConnection */
	static void old(InetSocketAddress server) throws Exception {
		String port = null;
		for (int i = 0; i < 10; i++) {
			HttpURLConnection connection = (HttpURLConnection) uri(server, "/port").toURL().openConnection();
			String got = new String(connection.getInputStream().readAllBytes());
			Traffic.equal("the old client's port", got, port == null ? got : port);
			port = got;
		}
		byte[] bytes = Traffic.data(5, 1000000);
		HttpURLConnection connection = (HttpURLConnection) uri(server, "/sum").toURL().openConnection();
		connection.setDoOutput(true);
		connection.setChunkedStreamingMode(4000);
		try (OutputStream out = connection.getOutputStream()) {
			out.write(bytes);
		}
		Traffic.equal("what the old client uploaded", new String(connection.getInputStream().readAllBytes()),
			bytes.length + " " + Arrays.hashCode(bytes) + " chunked");
		HttpURLConnection hasty = (HttpURLConnection) uri(server, "/slow").toURL().openConnection();
		hasty.setReadTimeout(300);
		Traffic.throwsA(SocketTimeoutException.class, null, hasty::getInputStream);
	}

	private Web() {}
}
