#!/usr/bin/env python3
"""A load balancer: passes connections on and puts a PROXY header before each, version 1 and version 2 in turn.

  proxy_header.py FROM TO CLIENT PORT…
      Listens on FROM:PORT and connects to TO:PORT, for each PORT, and says that the client is CLIENT (an IPv4 address).
      Prints `ready` once it listens.
"""
import asyncio
import socket
import struct
import sys


def header(version, client, to, port):
    if version == 1:
        return f"PROXY TCP4 {client} {to} 40000 {port}\r\n".encode()
    addresses = socket.inet_aton(client) + socket.inet_aton(to) + struct.pack(">HH", 40000, port)
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", len(addresses)) + addresses


async def copy(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (ConnectionError, OSError):
        writer.close()


async def main(listen, to, client, *ports):
    turn = 0

    def serve(port):
        async def one(reader, writer):
            nonlocal turn
            turn += 1
            try:
                there, back = await asyncio.open_connection(to, port)
            except OSError:
                writer.close()
                return
            back.write(header(1 + turn % 2, client, to, port))
            await asyncio.gather(copy(reader, back), copy(there, writer))
            writer.close()
            back.close()

        return one

    servers = [await asyncio.start_server(serve(port), listen, port) for port in map(int, ports)]
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(*sys.argv[1:]))
