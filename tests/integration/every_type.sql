-- A table with every common column type, and rows that fill them.
CREATE TYPE mood AS ENUM ('fine', 'so so', 'O''Hara');
CREATE TYPE place AS (street text, number int, tags text[]);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE everything (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz NOT NULL,
    small smallint, big bigint, exact numeric(30, 10), any_exact numeric, real_one real, float_one double precision,
    yes boolean, short varchar(20), fixed char(5), long text COLLATE "C" NOT NULL DEFAULT 'x', raw bytea,
    day date, clock time, zoned timetz, stamp timestamp(3), span interval, doc json, docb jsonb,
    words text[], grid int[][], feeling mood, feelings mood[], address place, addresses place[],
    counted positive, twice bigint GENERATED ALWAYS AS (big * 2) STORED, id16 uuid, net inet, mac macaddr,
    bits bit varying(12), point point, range int4range, ranges tstzrange, vector tsvector, "Odd ""name%" text);
INSERT INTO everything (created_at, small, big, exact, any_exact, real_one, float_one, yes, short, fixed, long,
    raw, day, clock, zoned, stamp, span, doc, docb, words, grid, feeling, feelings, address, addresses, counted,
    id16, net, mac, bits, point, range, ranges, vector, "Odd ""name%")
SELECT now() - i * interval '3 hours', i % 100, i * 10000000000, i / 7.0, 'NaN', i / 3.0, 'infinity', i % 2 = 0,
    'ü' || i, 'ab', repeat('long ', i % 900), decode(lpad(to_hex(i), 8, '0'), 'hex'), 'infinity', '12:34:56.789',
    '12:34:56+02', now(), '1 mon 2 days 03:04:05', '{"b":  1, "a":2, "a":3}', '{"b":  1, "a":2}',
    ARRAY['a', NULL, '{}', '"q"'], ARRAY[[1, 2], [3, NULL]], 'O''Hara', ARRAY['fine', 'so so']::mood[],
    ROW('Main, "St"', i, ARRAY['x'])::place, ARRAY[ROW(NULL, 1, NULL)::place], i, gen_random_uuid(), '10.0.0.1/8',
    '08:00:2b:01:02:03', B'1010', point(i, 0.1), '[1,5)', tstzrange(now(), NULL), 'a fat cat',
    CASE WHEN i % 2 = 0 THEN 'a % b' END
FROM generate_series(1, 2000) i;
INSERT INTO everything (created_at, long) VALUES (now() - interval '400 days', ''), ('-infinity', 'z');
