-- Each order as it comes, with its customer and its product. LEFT: an order of an unknown customer is shown as well.
SELECT o.order_id, o.amount, c.name AS customer, c.tier, c.country, p.name AS product, p.category
FROM orders AS o
LEFT LOOKUP JOIN customers AS c ON o.customer_id = c.id
LEFT LOOKUP JOIN products AS p ON o.product_id = p.id;
