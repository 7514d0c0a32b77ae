// SPDX-License-Identifier: GPL-2.0-or-later

import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.io.Serializable;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.rmi.NotBoundException;
import java.rmi.Remote;
import java.rmi.RemoteException;
import java.rmi.registry.LocateRegistry;
import java.rmi.registry.Registry;
import java.rmi.server.UnicastRemoteObject;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.TreeMap;

/** Serialised objects over a socket, and RMI. */
final class Objects {
	record Item(String name, int number, byte[] bytes, List<Item> parts) implements Serializable {}

	static Item item(int depth, int number) {
		List<Item> parts = new ArrayList<>();
		for (int i = 0; depth > 0 && i < 4; i++)
			parts.add(item(depth - 1, number * 4 + i));
		return new Item("item " + number, number, Traffic.data(number, 100 + number), parts);
	}

	static void same(Item got, Item want) {
		Traffic.equal("name", got.name, want.name);
		Traffic.equal("number", got.number, want.number);
		Traffic.same(got.bytes, want.bytes);
		Traffic.equal("parts", got.parts.size(), want.parts.size());
		for (int i = 0; i < got.parts.size(); i++)
			same(got.parts.get(i), want.parts.get(i));
	}

	// ---- each object comes back in a map, under its name ----

	static void serve(int port) throws IOException {
		Sockets.accept(new ServerSocket(port), socket -> {
			// The header goes out at once, else both ends would wait for the other's.
			ObjectOutputStream out = new ObjectOutputStream(socket.getOutputStream());
			out.flush();
			ObjectInputStream in = new ObjectInputStream(socket.getInputStream());
			while (in.readObject() instanceof Item got) {
				TreeMap<String, Item> answer = new TreeMap<>();
				answer.put(got.name, got);
				out.writeObject(answer);
				out.reset();
			}
			out.writeObject("the end");
		});
	}

	static void check(InetSocketAddress server) throws Exception {
		Traffic.together(5, i -> {
			try (Socket socket = new Socket(server.getAddress(), server.getPort());
					ObjectOutputStream out = new ObjectOutputStream(socket.getOutputStream())) {
				out.flush();
				ObjectInputStream in = new ObjectInputStream(socket.getInputStream());
				for (int number = 1; number <= 20; number++) {
					Item item = item(number % 4, number);
					out.writeObject(item);
					out.reset();
					same((Item) ((TreeMap<?, ?>) in.readObject()).get("item " + number), item);
				}
				out.writeObject("the end");
				Traffic.equal("the last object", in.readObject(), "the end");
			}
		});
	}

	// ---- RMI: a registry, objects of its own, a call back to the client ----

	interface Listener extends Remote {
		void told(int number) throws RemoteException;
	}

	interface Calculator extends Remote {
		Item reversed(Item item) throws RemoteException;
		void tell(Listener listener, int times) throws RemoteException;
		void fail(String why) throws RemoteException, NotBoundException;
	}

	static class Worker implements Calculator {
		public Item reversed(Item item) {
			List<Item> parts = new ArrayList<>(item.parts);
			Collections.reverse(parts);
			return new Item(item.name, item.number, item.bytes, parts);
		}

		public void tell(Listener listener, int times) throws RemoteException {
			for (int i = 0; i < times; i++)
				listener.told(i);
		}

		public void fail(String why) throws NotBoundException {
			throw new NotBoundException(why);
		}
	}

	static final List<Remote> kept = new ArrayList<>();

	static void serveRmi(int port) throws RemoteException {
		Registry registry = LocateRegistry.createRegistry(port);
		Worker worker = new Worker();
		kept.add(registry);
		kept.add(worker);
		registry.rebind("calculator", UnicastRemoteObject.exportObject(worker, 0));
	}

	static void checkRmi(InetSocketAddress server) throws Exception {
		Registry registry = LocateRegistry.getRegistry(server.getAddress().getHostAddress(), server.getPort());
		Traffic.equal("the registry's names", List.of(registry.list()), List.of("calculator"));
		Calculator calculator = (Calculator) registry.lookup("calculator");
		Traffic.together(5, i -> {
			for (int number = 1; number <= 5; number++) {
				Item item = item(2, number + i);
				same(calculator.reversed(calculator.reversed(item)), item);
			}
		});
		Traffic.throwsA(NotBoundException.class, "on purpose", () -> calculator.fail("on purpose"));
		List<Integer> told = Collections.synchronizedList(new ArrayList<>());
		Listener listener = told::add;
		Remote exported = UnicastRemoteObject.exportObject(listener, 0);
		calculator.tell((Listener) exported, 20);
		Traffic.equal("calls back", told.size(), 20);
		UnicastRemoteObject.unexportObject(listener, true);
	}

	private Objects() {}
}
