#!/bin/sh
# Makes the clips that the reference encoder loops: three H.264 rungs and two AAC languages, 8 s each, which is the time
# after which 2 s segments, 30 fps frames (240) and AAC frames of 1024 samples at 48 kHz (375) all line up again.
#
# Every motion in picture and sound has a period that divides 8 s, so the loop has no seam. The same tools make the same
# bytes: bit-exact flags, one thread, a seeded grain.
#
# Needs: ffmpeg 5.1 or later with libx264, espeak-ng, the DejaVu fonts (Debian: ffmpeg espeak-ng fonts-dejavu-core).
# Usage: make.sh [folder]    the folder to write to; this one by default
set -eu
export LC_ALL=C
out=$(cd "${1:-$(dirname "$0")}" && pwd)
for tool in ffmpeg espeak-ng; do
	command -v "$tool" >/dev/null || { echo "make.sh: $tool is missing: apt-get install ffmpeg espeak-ng fonts-dejavu-core" >&2; exit 1; }
done
fonts=/usr/share/fonts/truetype/dejavu
bold=$fonts/DejaVuSans-Bold.ttf
mono=$fonts/DejaVuSansMono-Bold.ttf
[ -r "$bold" ] && [ -r "$mono" ] || { echo "make.sh: no DejaVu fonts in $fonts: apt-get install fonts-dejavu-core" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
ff="ffmpeg -nostdin -hide_banner -loglevel error -y -threads 1 -filter_threads 1 -filter_complex_threads 1"
exact="-fflags +bitexact -flags:v +bitexact -flags:a +bitexact -map_metadata -1"

echo "make.sh: the stage"
# An arena: four beams that sweep from the rig, a floor grid that runs towards the camera, phones that flicker in the stands, an orbiting light.
# It is drawn at a third of the size: everything in it is soft.
cat >"$work/stage.txt" <<'GEQ'
nullsrc=s=428x240:r=30:d=8,format=yuv444p,geq=
lum='st(0,X/W-0.5); st(1,Y/H); st(2,2*PI*T/8);
 st(3, exp(-pow((ld(0)+0.33-ld(1)*0.55*sin(ld(2)))/(0.02+0.07*ld(1)),2))
  + exp(-pow((ld(0)-0.33-ld(1)*0.55*sin(ld(2)+PI))/(0.02+0.07*ld(1)),2))
  + exp(-pow((ld(0)+0.11-ld(1)*0.40*sin(2*ld(2)+1))/(0.02+0.06*ld(1)),2))
  + exp(-pow((ld(0)-0.11-ld(1)*0.40*sin(2*ld(2)+2.6))/(0.02+0.06*ld(1)),2)));
 st(4, max(ld(1)-0.66,0.001));
 st(5, gt(ld(1),0.665)*min(1,ld(4)*6)*(
    gt(cos(2*PI*(0.42/ld(4)+2*T)),0.90)+gt(cos(2*PI*ld(0)*1.1/ld(4)),0.93)));
 st(6, 9301*floor(X/5)+49297*floor(Y/5)+233280*mod(floor(T*4)+floor(X/5)*7+floor(Y/5)*3,32));
 st(7, between(ld(1),0.40,0.64)*gt(mod(abs(sin(ld(6))*43758.5453),1),0.955)
    *exp(-0.7*(pow(mod(X,5)-2,2)+pow(mod(Y,5)-2,2))));
 st(8, exp(-(pow((ld(0)-0.40*cos(ld(2)))*W/H,2)+pow(ld(1)-0.42-0.26*sin(ld(2)),2))*900));
 clip(22+26*(1-ld(1))*(1-ld(1))+46*ld(3)*(1.05-ld(1))+70*ld(5)+150*ld(7)+190*ld(8),16,235)':
cb='128+34*(1-Y/H)*exp(-pow((X/W-0.5)*1.6,2))+14*sin(2*PI*T/8)*gt(Y/H,0.66)+10':
cr='128+26*sin(2*PI*(X/W+T/8))*exp(-pow(Y/H-0.25,2)*8)+18*gt(Y/H,0.66)*cos(2*PI*T/8)',
scale=1280:720:flags=bicubic
GEQ
# The sweep: a ring that fills once a second behind the count.
cat >"$work/ring.txt" <<'GEQ'
nullsrc=s=288x288:r=30:d=8,format=yuva444p,geq=
lum='st(0,hypot(X-143.5,Y-143.5)); 34+(50+150*gt(ld(0),114))*lt(mod(atan2(X-143.5,143.5-Y)/(2*PI)+1,1),mod(T,1)+0.0334)':cb=116:cr=150:
a='st(0,hypot(X-143.5,Y-143.5)); 230*clip(128.5-ld(0),0,1)*clip(ld(0)-113.5,0,1)+165*clip(114.5-ld(0),0,1)'
GEQ
tr -d '\n' <"$work/stage.txt" >"$work/stage"
tr -d '\n' <"$work/ring.txt" >"$work/ring"
printf '%s' 'TMINUS LIVE REHEARSAL  ///  TITLE FIGHT, NOT YET ON THE AIR  ///  DO NOT ADJUST YOUR SET  ///  ' >"$work/once"
for _ in 1 2 3; do cat "$work/once"; done >"$work/ticker"
printf 'T-%%{eif:8-floor(n/30):d:1}' >"$work/count"
printf 'SEGMENT %%{eif:1+floor(n/60):d:1}/4  FRAME %%{eif:n:d:3}/240' >"$work/clock"
$ff -filter_complex "
 $(cat "$work/stage")[stage];
 $(cat "$work/ring"),scale=352:352[ring];
 [stage][ring]overlay=464:122:format=yuv444,
 drawtext=fontfile=$bold:textfile=$work/count:fontcolor=white:fontsize=124:x=(w-tw)/2:y=246,
 drawtext=fontfile=$bold:text='LIVE REHEARSAL':fontcolor=white@0.92:fontsize=34:x=40:y=34:box=1:boxcolor=0xc01828@0.85:boxborderw=12,
 drawtext=fontfile=$mono:textfile=$work/clock:fontcolor=0x9fe8ff:fontsize=26:x=w-tw-40:y=36:box=1:boxcolor=black@0.5:boxborderw=10,
 drawbox=x=0:y=640:w=1280:h=52:color=black@0.62:t=fill,
 drawtext=fontfile=$mono:textfile=$work/ticker:fontcolor=0xffd75e:fontsize=30:x=-n/240*tw/3:y=652,
 drawbox=x=604:y=500:w=72:h=20:color=white:t=fill:enable='lt(mod(n,30),3)',
 noise=all_seed=2022:c0s=7:c0f=t,format=yuv420p[v]" \
	-map '[v]' -c:v ffv1 -level 3 -g 1 $exact -frames:v 240 "$work/master.mkv"

rung() { # id width height video-kbit/s level label
	echo "make.sh: $1, $2x$3 at $4 kbit/s"
	$ff -i "$work/master.mkv" -vf "scale=$2:$3:flags=lanczos+accurate_rnd+bitexact,drawtext=fontfile=$mono:text='$6':fontcolor=white:fontsize=$(($3 / 16)):x=w*0.031:y=h*0.79:box=1:boxcolor=black@0.55:boxborderw=$(($3 / 70)),setsar=1,format=yuv420p" \
		-c:v libx264 -preset slow -profile:v "$7" -level "$5" -bf 0 -g 60 -keyint_min 60 -sc_threshold 0 -flags +cgop \
		-x264-params "threads=1:lookahead-threads=1:sliced-threads=0:force-cfr=1:nal-hrd=none:open-gop=0:stitchable=1:bframes=0" \
		-b:v "$4k" -maxrate "$4k" -bufsize "$4k" -color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range tv \
		-video_track_timescale 90000 $exact -frames:v 240 -f mp4 "$out/$1.mp4"
}
rung v360 640 360 600 3.0 '360p' main
rung v540 960 540 1400 3.1 '540p' main
rung v720 1280 720 2800 3.1 '720p' high

# One language: a voice that counts on the second, a click under every flash, and a chord of its own so that an ear (or a test)
# tells the languages apart between the words. All sines have whole periods in 8 s.
language() { # id voice chord(Hz Hz Hz) words...
	id=$1 voice=$2 a=$3 b=$4 c=$5
	shift 5
	echo "make.sh: $id"
	inputs= chain= mix= i=0
	for word in "$@"; do
		espeak-ng -v "$voice" -s 150 -p 40 -a 170 -w "$work/$id-$i.wav" "$word"
		inputs="$inputs -i $work/$id-$i.wav"
		chain="$chain[$i:a]aresample=48000:dither_method=none,adelay=delays=$((i * 48000 + 2400))S:all=1,apad=whole_len=384000,atrim=end_sample=384000[w$i];"
		mix="$mix[w$i]"
		i=$((i + 1))
	done
	$ff $inputs -filter_complex "$chain
	 aevalsrc=exprs='0.05*(sin(2*PI*$a*t)+sin(2*PI*$b*t)+sin(2*PI*$c*t))*(0.7+0.3*sin(2*PI*t/4))+0.25*sin(2*PI*1000*t)*lt(mod(t\,1)\,0.03)':s=48000:d=8[bed];
	 ${mix}[bed]amix=inputs=$((i + 1)):normalize=0,alimiter=limit=0.9:level=0,pan=stereo|c0=c0|c1=c0[m]" \
		-map '[m]' -c:a pcm_s16le $exact "$work/$id.wav"
	# AAC frames lean on the one before: encode the loop four times over and keep one from the middle. The encoder's
	# delay is one frame (1024 samples), so frame 1+375k decodes to the loop's first sample.
	$ff -stream_loop 3 -i "$work/$id.wav" -c:a aac -profile:a aac_low -b:a 96k -ac 2 -ar 48000 $exact -f adts "$work/$id-4.aac"
	$ff -i "$work/$id-4.aac" -c:a copy -bsf:a "noise=drop='lt(n\,376)+gte(n\,751)'" $exact -f adts "$out/$id.aac"
}
language a-en en-us 220 277.25 329.625 eight seven six five four three two one
language a-es es-419 196 246.875 293.625 ocho siete seis cinco cuatro tres dos uno
ls -l "$out"/*.mp4 "$out"/*.aac
