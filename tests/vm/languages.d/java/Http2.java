// SPDX-License-Identifier: GPL-2.0-or-later

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * java.net.http's client asks for HTTP/2 by an upgrade. The JDK has no server of it: this one knows as much of RFC 7540 as that
 * client needs. Each request is answered with the same data, which is smaller than any window.
 */
final class Http2 {
	static final int DATA = 0, HEADERS = 1, SETTINGS = 4, PING = 6, GOAWAY = 7;
	static final int END_STREAM = 1, ACK = 1, END_HEADERS = 4;
	static final int STATUS_200 = 0x88; // HPACK's static table
	static final byte[] BODY = Traffic.data(1, 1500);

	static void serve(int port) throws IOException {
		Sockets.accept(new ServerSocket(port), Http2::connection);
	}

	static void connection(Socket socket) throws IOException {
		socket.setTcpNoDelay(true);
		DataInputStream in = new DataInputStream(socket.getInputStream());
		DataOutputStream out = new DataOutputStream(socket.getOutputStream());
		String head = "";
		while (!head.endsWith("\r\n\r\n"))
			head += (char) in.readUnsignedByte();
		if (!head.contains("Upgrade: h2c\r\n"))
			return;
		out.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".getBytes());
		frame(out, SETTINGS, 0, 0, new byte[0]);
		in.readFully(new byte["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".length()]);
		answer(out, 1);
		while (true) {
			int first = in.readInt(), length = first >>> 8, type = first & 255;
			int flags = in.readUnsignedByte(), stream = in.readInt();
			byte[] payload = in.readNBytes(length);
			if (type == SETTINGS && (flags & ACK) == 0)
				frame(out, SETTINGS, ACK, 0, new byte[0]);
			else if (type == PING && (flags & ACK) == 0)
				frame(out, PING, ACK, 0, payload);
			else if (type == HEADERS)
				answer(out, stream);
			else if (type == GOAWAY)
				return;
		}
	}

	static void answer(DataOutputStream out, int stream) throws IOException {
		frame(out, HEADERS, END_HEADERS, stream, new byte[] {(byte) STATUS_200});
		frame(out, DATA, END_STREAM, stream, BODY);
	}

	static void frame(DataOutputStream out, int type, int flags, int stream, byte[] payload) throws IOException {
		out.writeInt(payload.length << 8 | type);
		out.writeByte(flags);
		out.writeInt(stream);
		out.write(payload);
	}

	static void check(InetSocketAddress server) throws Exception {
		HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).build();
		HttpRequest request = HttpRequest.newBuilder(Web.uri(server, "/")).timeout(Duration.ofSeconds(100)).build();
		is(client.send(request, BodyHandlers.ofByteArray()));
		List<CompletableFuture<HttpResponse<byte[]>>> all = new ArrayList<>();
		for (int i = 0; i < 20; i++)
			all.add(client.sendAsync(request, BodyHandlers.ofByteArray()));
		for (CompletableFuture<HttpResponse<byte[]>> each : all)
			is(each.get());
	}

	static void is(HttpResponse<byte[]> response) {
		Traffic.equal("version", response.version(), HttpClient.Version.HTTP_2);
		Traffic.equal("status", response.statusCode(), 200);
		Traffic.same(response.body(), BODY);
	}

	private Http2() {}
}
