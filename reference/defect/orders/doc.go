// Package orders takes orders for defects over HTTP and carries them out on a defect.Set, and is the other side's Sign:
//
//	PUT /v1/defects/{id}     {"part":"us-east/edge-1","kind":"cache-wipe","params":{"every_ms":500},"lease_ms":3000}
//	                         201: it is in force now; 200: it was, and its lease is renewed. The answer is the defect
//	DELETE /v1/defects/{id}  204: it is not in force any more, or never was
//	GET /v1/defects          {"defects":[…]}: what is in force
//
// What changes anything carries, in Header, the hexadecimal HMAC-SHA256, with the run's key, of its method, a space, its path, a
// line feed and its body: only the run that a component belongs to can break it.
package orders
