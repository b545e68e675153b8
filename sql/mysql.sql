-- Orders with their customer's name and tier, of customers that are active: the condition is part of the join, so orders of
-- others stay, without a name. With catalogs/mysql.toml.
SELECT o.order_id, o.amount, c.name, c.tier
FROM orders AS o
LEFT LOOKUP JOIN customers AS c ON o.customer_id = c.id AND c.active;
