-- Each order with its customer, a hash in Redis, and the limit of his plan, a JSON document there.
SELECT o.order_id, c.name, c.tier, p.quota
FROM orders AS o
LEFT LOOKUP JOIN customers AS c ON o.customer_id = c.id
LEFT LOOKUP JOIN plans AS p ON o.region = p.region AND o.customer_id = p.id;
