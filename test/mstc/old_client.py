"""The MSTC worker's Python client, as it was: declares the durable work queue and a reply queue of its own, sends one request
with a correlation id, and blocks for the answer. usage: old_client.py URL EXCHANGE REQUEST [SECONDS]"""
import json
import sys
import time
import uuid

import pika

WORK_QUEUE = "mstc.queue.work"


class Client:
    def __init__(self, url, exchange):
        self.exchange = exchange
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.channel.queue_declare(queue=WORK_QUEUE, durable=True)
        self.callback_queue = self.channel.queue_declare(queue="", exclusive=True).method.queue
        self.channel.basic_consume(queue=self.callback_queue, on_message_callback=self.on_response, auto_ack=True)

    def on_response(self, _channel, _method, properties, body):
        if properties.correlation_id == self.correlation_id:
            self.response = body

    def send(self, request, seconds):
        self.response = None
        self.correlation_id = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange=self.exchange,
            routing_key=WORK_QUEUE,
            properties=pika.BasicProperties(reply_to=self.callback_queue, correlation_id=self.correlation_id),
            body=request if isinstance(request, str) else json.dumps(request),
        )
        until = time.monotonic() + seconds
        while self.response is None and time.monotonic() < until:
            self.connection.process_data_events(time_limit=0.1)
        return json.loads(self.response) if self.response is not None else None


if __name__ == "__main__":
    _, url, exchange, request, *seconds = sys.argv
    print(json.dumps(Client(url, exchange).send(request, float(seconds[0]) if seconds else 60)))
