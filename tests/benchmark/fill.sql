-- Results $1 to $2, one every $3 seconds: see searches.py
WITH made AS (
    SELECT n, (TIMESTAMPTZ '2026-03-01Z' + n * $3::float8 * INTERVAL '1 second') AS received, random() AS r1, random() AS r2, random() AS r3, random() AS r4, random() AS r5
    FROM generate_series($1::bigint, $2::bigint) AS n
), told AS (
    SELECT n, received, r4, r5,
        lpad(to_hex((extract(epoch FROM received) * 1000)::bigint), 12, '0') AS ms,
        received - CASE WHEN r1 < 0.01 THEN r2 * 172800 ELSE r2 * 2 END * INTERVAL '1 second' AS captured,
        CASE WHEN r1 < 0.5 THEN 'north' WHEN r1 < 0.8 THEN 'south' WHEN r1 < 0.9999 THEN 'east' ELSE 'far' END AS site,
        CASE WHEN r2 < 0.1 THEN NULL WHEN r2 > 0.99999 THEN 'rare' ELSE 'belt-' || (r2 * 40)::int END AS camera,
        CASE WHEN r3 < 0.7 THEN 'parcels' WHEN r3 < 0.95 THEN 'boards' ELSE 'bottles' END AS pipeline,
        CASE WHEN r3 < 0.005 THEN 'failed' ELSE 'completed' END AS status,
        CASE WHEN r4 < 0.09 THEN 'damaged' WHEN r4 > 0.99999 THEN 'burnt' ELSE 'intact' END AS label,
        round(r5::numeric, 5) AS score
    FROM made
), named AS (
    SELECT *, substr(ms, 1, 8) || '-' || substr(ms, 9, 4) || '-7' || lpad(to_hex(n % 4096), 3, '0') || '-8'
        || lpad(to_hex(n / 4096 % 4096), 3, '0') || '-' || lpad(to_hex(n), 12, '0') AS id
    FROM told
), bodies AS (
    SELECT *, convert_to(json_build_object(
        'id', id, 'status', status, 'site', site, 'camera', camera, 'pipeline', pipeline, 'ref', 'order-' || n / 3,
        'captured_at', captured, 'received_at', received, 'completed_at', received, 'environment', repeat('e', 40),
        'detections', json_build_array(json_build_object(
            'label', 'parcel', 'score', score, 'box', json_build_array(1.5, 2.5, 300.25, 200.125), 'step', 'find')),
        'classifications', json_build_array(json_build_object('label', label, 'score', score, 'step', 'damage'))
    )::text, 'UTF8') AS body
    FROM named
), r AS (
    INSERT INTO results (id, status, site, camera, pipeline, ref, captured_at, top_score, body)
    SELECT id, status, site, camera, pipeline, 'order-' || n / 3, to_char(captured AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), score, body FROM bodies
), l AS (
    INSERT INTO result_labels (label, result_id, score)
    SELECT label, id, score FROM bodies UNION ALL SELECT 'parcel', id, score FROM bodies WHERE r5 > 0.3
), c AS (
    INSERT INTO result_codes (code, result_id) SELECT 'P' || n / 2, id FROM bodies WHERE r4 < 0.2
)
INSERT INTO audit (id, kind, at, salt, body_sha256, block, position)
SELECT id, 'result', to_char(received AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    '\x00112233445566778899aabbccddeeff'::bytea, md5(id) || md5(ms), n / 1000, n % 1000
FROM bodies
