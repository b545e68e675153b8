-- Each order that is in the topic by now, with its customer and with where it stands there.
SELECT o.order_id, c.name, c.tier, o.amount, o.kafka_partition, o.kafka_offset
FROM orders AS o WITH (start = 'earliest', until = 'latest')
LEFT LOOKUP JOIN customers AS c ON o.customer_id = c.id;
