-- Orders with the country that they go to and its rate: of files, by catalogs/files.toml.
SELECT o.order_id, o.country, c.name, r.rate
FROM (SELECT * FROM orders LIMIT 20) AS o
LEFT LOOKUP JOIN countries AS c ON o.country = c.code
LEFT LOOKUP JOIN rates AS r ON r.region = c.region AND r.year = 2024;
