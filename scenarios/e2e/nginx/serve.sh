#!/usr/bin/env bash
# usage: serve.sh [PORT]: an HLS stream of one's own, as somebody who has no tminus would serve it: ffmpeg makes a test
# picture and a tone in two renditions, nginx serves it on 127.0.0.1:PORT (8088). It prints the stream's URL when its first
# segments are there, runs until Ctrl-C or SIGTERM, and leaves nothing behind.
set -euo pipefail
port=${1:-8088}
case $port in *[!0-9]* | '') echo "usage: serve.sh [PORT]" >&2; exit 2 ;; esac
for c in ffmpeg nginx; do
	command -v "$c" >/dev/null || { echo "serve.sh: $c is missing: install it (Debian and Ubuntu: apt-get install ${c/#nginx/nginx-light})" >&2; exit 1; }
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/tminus-nginx.XXXXXX")
chmod 755 "$dir" # nginx reads it as another user
pids=()
finish() {
	trap - EXIT INT TERM
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
	rm -rf "$dir"
}
trap finish EXIT
trap 'exit 0' INT TERM
mkdir -p "$dir/live" "$dir/tmp"
cat >"$dir/nginx.conf" <<EOF
daemon off;
master_process on;
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/error.log warn;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path $dir/tmp/body;
	proxy_temp_path $dir/tmp/proxy;
	fastcgi_temp_path $dir/tmp/fastcgi;
	uwsgi_temp_path $dir/tmp/uwsgi;
	scgi_temp_path $dir/tmp/scgi;
	types {
		application/vnd.apple.mpegurl m3u8;
		video/mp4 mp4 m4s;
	}
	server {
		listen 127.0.0.1:$port;
		root $dir;
		location = /healthz { return 200 "ok\n"; }
		location /live/ { add_header Cache-Control "max-age=1"; add_header Access-Control-Allow-Origin "*"; }
	}
}
EOF
nginx -e "$dir/error.log" -p "$dir" -c "$dir/nginx.conf" &
pids+=($!)
# Segments of 2 s, as keyframes are forced, each with its date; the last 60 s of them stay.
ffmpeg -hide_banner -loglevel error -nostdin -re \
	-f lavfi -i "testsrc2=size=640x360:rate=25" -f lavfi -i "sine=frequency=440:sample_rate=48000" \
	-filter_complex "[0:v]split=2[a][b];[b]scale=320:180[c]" -map "[a]" -map "[c]" -map 1:a -map 1:a \
	-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -force_key_frames "expr:gte(t,n_forced*2)" -sc_threshold 0 \
	-b:v:0 800k -b:v:1 300k -c:a aac -b:a 64k -ac 2 \
	-f hls -hls_time 2 -hls_list_size 30 -hls_segment_type fmp4 -hls_flags delete_segments+independent_segments+program_date_time+temp_file \
	-hls_segment_filename "$dir/live/%v-%d.m4s" -hls_fmp4_init_filename "init-%v.mp4" -master_pl_name master.m3u8 \
	-var_stream_map "v:0,a:0,name:360p v:1,a:1,name:180p" "$dir/live/%v.m3u8" &
pids+=($!)
for _ in $(seq 150); do
	if [ "$(grep -c m4s "$dir/live/360p.m3u8" 2>/dev/null || true)" -ge 3 ] 2>/dev/null && [ -e "$dir/live/master.m3u8" ]; then
		echo "http://127.0.0.1:$port/live/master.m3u8"
		break
	fi
	for pid in "${pids[@]}"; do
		kill -0 "$pid" 2>/dev/null || { echo "serve.sh: the stream did not come up" >&2; tail -n 5 "$dir/error.log" >&2 || true; exit 1; }
	done
	sleep 0.2
done
wait -n "${pids[@]}"
echo "serve.sh: a part of the stream ended" >&2
exit 1
