# SPDX-License-Identifier: Apache-2.0
"""Sends requests by HTTP/3, one after the other on one connection, and prints a line of JSON for each answer.

    python3 http3.py PORT SERVER_NAME CA_FILE KEY BODY...
"""

import asyncio
import json
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answers = {}

    def quic_event_received(self, event):
        for e in self.http.handle_event(event):
            answer = self.answers.get(getattr(e, "stream_id", None))
            if answer is None:
                continue
            if isinstance(e, HeadersReceived):
                answer["headers"].update({k.decode(): v.decode() for k, v in e.headers})
            elif isinstance(e, DataReceived) and e.data:
                answer["body"] += e.data.decode()
            if getattr(e, "stream_ended", False) and not answer["done"].done():
                answer["done"].set_result(None)

    async def post(self, authority, key, body):
        stream = self._quic.get_next_available_stream_id()
        answer = {"headers": {}, "body": "", "done": self._loop.create_future()}
        self.answers[stream] = answer
        self.http.send_headers(stream, [
            (b":method", b"POST"), (b":scheme", b"https"), (b":authority", authority.encode()), (b":path", b"/v1/chat/completions"),
            (b"authorization", b"Bearer " + key.encode()), (b"content-type", b"application/json"),
        ])
        self.http.send_data(stream, body.encode(), end_stream=True)
        self.transmit()
        await asyncio.wait_for(answer["done"], 30)
        return {"headers": answer["headers"], "body": answer["body"]}


async def main(port, name, ca, key, *bodies):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name)
    configuration.load_verify_locations(ca)
    async with connect("127.0.0.1", int(port), configuration=configuration, create_protocol=Client) as client:
        for body in bodies:
            answer = await client.post(f"{name}:{port}", key, body)
            print(json.dumps(answer), flush=True)


asyncio.run(main(*sys.argv[1:]))
