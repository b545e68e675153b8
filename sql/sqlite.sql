-- Orders with the customer's name and for how long he has been one, over catalogs/sqlite.toml.
CREATE VIEW enriched AS
SELECT o.order_id, c.name, c.since
FROM orders AS o
LEFT LOOKUP JOIN customers AS c ON o.customer_id = c.id;
