-- Orders with what their articles cost: of an HTTP service, by catalogs/http.toml.
SELECT o.order_id, o.sku, p.price, p.stock, b.price AS batch_price
FROM (SELECT * FROM orders LIMIT 20) AS o
LEFT LOOKUP JOIN prices AS p ON o.sku = p.sku
LEFT LOOKUP JOIN batch_prices AS b ON o.sku = b.sku;
